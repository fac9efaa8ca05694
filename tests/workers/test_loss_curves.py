"""The curves that the control plane draws are those of the losses that train."""

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.spec.catalogue import catalogue, parameters
from service.spec.curves import Curve, CurvesRequest, curve, curves
from service.spec.curves.terms import LOGP, TOKENS
from service.spec.losses import ExoPairLoss, Loss, LossKind
from service.spec.shapes import DataShape
from workers.losses import Facts, Logps, StepTotals, combine

MARGINS = (-58.0, -40.0, -13.0, -1.0, 0.0, 0.5, 7.0, 40.0, 58.0)
TERM: TypeAdapter[Loss] = TypeAdapter(Loss)


def trained(term: Loss) -> Curve:
    """What the workers' functions make of the same step: the loss, and autograd's derivative."""
    points = [_point(term, margin) for margin in MARGINS]
    return Curve(loss=[loss for loss, _ in points], gradient=[slope for _, slope in points])


def _point(term: Loss, at: float) -> tuple[float, float]:
    margin = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    answers = torch.stack([LOGP + margin / 2, LOGP - margin / 2])
    unpaired = term.type.data_shape is DataShape.UNPAIRED
    sums_BK = torch.stack([answers, torch.full_like(answers, LOGP)], 1) if unpaired else answers[None]
    ones_B = torch.ones(len(sums_BK), dtype=torch.float64)
    policy = Logps(sums_BK, shared_BK=sums_BK, prompt_B=0 * ones_B, certainty_BK=torch.zeros_like(sums_BK))
    facts = Facts(
        counts_BK=torch.full_like(sums_BK, TOKENS),
        weights_B=ones_B,
        margins_B=0 * ones_B,
        prompt_counts_B=0 * ones_B,
        desirable_B=torch.tensor([True, False]) if unpaired else None,
    )
    reference = torch.full_like(sums_BK, LOGP)
    totals = StepTotals.of(facts)
    output = combine([term], policy, Logps(reference, shared_BK=reference), facts, totals)
    loss = output.per_example_B.sum() / totals.weight
    (slope,) = torch.autograd.grad(loss, margin)
    return float(loss.detach()), float(slope)


@st.composite
def terms(draw: st.DrawFn) -> Loss:
    """Any loss with any of its options."""
    kind = draw(st.sampled_from(LossKind))
    term: dict[str, Any] = {"type": kind}
    for option in parameters(kind):
        if not draw(st.booleans()):
            continue
        if option.type == "boolean":
            term[option.name] = draw(st.booleans())
        elif option.choices:
            term[option.name] = draw(st.sampled_from(option.choices))
        else:
            low, high = (float(end) for end in (option.range or "").strip("[]()").split(", "))
            # mypy does not follow that options with a range are the only ones here
            inside = st.floats(low, high, exclude_min=option.range[0] == "(", exclude_max=option.range[-1] == ")")  # type: ignore[index]
            term[option.name] = draw(
                st.one_of(inside, st.sampled_from([0.01, 0.1, 0.3, 0.5, 1.0]).filter(inside_of(low, high)))
            )
    try:
        return TERM.validate_python(term)
    except ValidationError:  # options that do not go together
        return TERM.validate_python({"type": kind})


def inside_of(low: float, high: float) -> Any:
    return lambda value: low <= value < high


@pytest.mark.parametrize("kind", LossKind)
def test_the_catalogues_curves_are_those_of_training(kind: LossKind) -> None:
    entry = next(entry for entry in catalogue().data if entry.type is kind)
    assert entry.curve == curve(TERM.validate_python({"type": kind}))
    assert_same(TERM.validate_python({"type": kind}))


@settings(max_examples=300, deadline=None)
@given(term=terms())
@example(ExoPairLoss(label_smoothing=1e-6))  # log e is infinite where e rounds to 0
def test_curves_with_any_options_are_those_of_training(term: Loss) -> None:
    assert_same(term)


def assert_same(term: Loss) -> None:
    ours, theirs = curve(term, MARGINS), trained(term)
    assert all(map(math.isfinite, ours.loss + ours.gradient))
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-4, abs=1e-9)
    assert ours.gradient == pytest.approx(theirs.gradient, rel=1e-4, abs=1e-9)


def test_sigmoids_points_are_those_of_its_formula() -> None:
    sigmoid = curve(TERM.validate_python({"type": "sigmoid", "beta": 0.3, "weight": 2}), MARGINS)
    for margin, loss, gradient in zip(MARGINS, sigmoid.loss, sigmoid.gradient, strict=True):
        assert loss == pytest.approx(2 * math.log1p(math.exp(-0.3 * margin)), rel=1e-5)
        assert gradient == pytest.approx(-0.6 / (1 + math.exp(0.3 * margin)), rel=1e-5)


def test_the_total_is_the_sum_of_the_weighted_terms() -> None:
    asked = CurvesRequest.model_validate({"losses": [{"type": "hinge", "beta": 0.5}, {"type": "sft", "weight": 0.2}]})
    found = curves(asked)
    assert found.terms[1].loss[0] == pytest.approx(0.2 * -(LOGP + found.margins[0] / 2) / TOKENS)
    for name in ("loss", "gradient"):
        parts = zip(*(getattr(term, name) for term in found.terms), strict=True)
        assert getattr(found.total, name) == pytest.approx([sum(part) for part in parts], rel=1e-4)
