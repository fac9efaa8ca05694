"""The catalogue's recorded points are what the losses compute now."""

import math

import pytest

from service.spec.catalogue import catalogue
from service.spec.losses import LossKind
from workers.losses.curves import curves

RECORDED = {entry.type: entry.curve for entry in catalogue().data}


@pytest.mark.parametrize("kind", LossKind)
def test_the_recorded_points_are_current(kind: LossKind) -> None:
    """If not: python -m workers.losses.curves"""
    assert catalogue().margins == curves().margins
    now = curves().curves[kind]
    assert RECORDED[kind].loss == pytest.approx(now.loss, rel=1e-5, abs=1e-12)
    assert RECORDED[kind].gradient == pytest.approx(now.gradient, rel=1e-5, abs=1e-12)


def test_sigmoids_points_are_those_of_its_formula() -> None:
    for margin, loss, gradient in zip(
        catalogue().margins, RECORDED[LossKind.SIGMOID].loss, RECORDED[LossKind.SIGMOID].gradient, strict=True
    ):
        assert loss == pytest.approx(math.log1p(math.exp(-0.1 * margin)), rel=1e-5)
        assert gradient == pytest.approx(-0.1 / (1 + math.exp(0.1 * margin)), rel=1e-5)


@pytest.mark.parametrize("kind", LossKind)
def test_the_gradient_is_the_slope_of_the_loss(kind: LossKind) -> None:
    """By the trapezoidal rule, loosely: kinks and steps are narrower than the grid."""
    margins, curve = catalogue().margins, RECORDED[kind]
    integral = sum((a + b) / 2 * 2 for a, b in zip(curve.gradient, curve.gradient[1:], strict=False))
    span = max(curve.loss) - min(curve.loss)
    assert margins[1] - margins[0] == 2
    assert integral == pytest.approx(curve.loss[-1] - curve.loss[0], abs=0.05 * span)
