"""`plumbline losses`, which needs no server."""

import pytest

from service.spec.losses import LossKind
from tests.cli.conftest import plumbline


def test_all_losses_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = plumbline("losses")
    assert status == 0
    assert [kind for kind in LossKind if f" {kind} " not in out] == []
    assert "max(0, 1 - beta d)" in out


def test_one_loss_is_explained_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = plumbline("losses", "robust")
    assert status == 0
    assert "https://arxiv.org/abs/2403.00409" in out
    assert "[0, 0.5)" in out
    assert "reverse_kl, forward_kl, js, alpha" in out


def test_an_unknown_loss_is_told_the_nearest() -> None:
    status, _, err = plumbline("losses", "hing")
    assert status == 1
    assert "Did you mean 'hinge'?" in err
