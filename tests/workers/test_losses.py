"""Losses against the peers' own numbers, recorded in float64 by running the peers' code."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.spec import Loss, SftLoss, SigmoidLoss
from workers.losses import PairCounts, PairLogps, StepTotals, combine

CASES = json.loads((Path(__file__).parents[1] / "data" / "loss_cases.json").read_text())["cases"]


def terms_of(case: dict[str, Any]) -> list[Loss] | None:
    """The case in our terms, or None if it is of a loss that is not ours."""
    params = case["params"]
    beta = params.get("beta", 0.1)
    match case["peer"], case["loss"]:
        case ("trl-1.16.0", "dpo/sigmoid"):
            return [SigmoidLoss(beta=beta)]
        case ("trl-1.16.0", "dpo/sft"):
            return [SftLoss()]
        case ("trl-1.16.0", "dpo/sigmoid+sft"):
            sigmoid, sft = params["loss_weights"]
            return [SigmoidLoss(beta=beta, weight=sigmoid), SftLoss(weight=sft)]
        case ("torchtune-0.6.1", "DPOLoss"):
            return [SigmoidLoss(beta=beta, label_smoothing=params["label_smoothing"])]
        case ("twinkle-kit-0.5.1", "DPOLoss/sigmoid") if "reference_free" not in params:
            sft_terms = [SftLoss(weight=params["sft_weight"])] if params["sft_weight"] else []
            return [SigmoidLoss(beta=beta), *sft_terms]
    return None


OURS = [(case, terms) for case in CASES if (terms := terms_of(case))]


def names(value: object) -> str | None:
    return f"{value['peer']}-{value['loss']}-{value['params']}" if isinstance(value, dict) else ""


def test_the_recorded_cases_cover_both_losses_alone_and_together() -> None:
    assert len(OURS) >= 22


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("case", "terms"), OURS, ids=names)
def test_loss_rewards_and_gradients_equal_the_peer(
    case: dict[str, Any], terms: list[Loss], dtype: torch.dtype, tolerance: float
) -> None:
    inputs, expected = case["inputs"], case["outputs"]

    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(inputs[name], dtype=dtype)

    policy = PairLogps(tensor("policy_chosen_logps").requires_grad_(), tensor("policy_rejected_logps").requires_grad_())
    reference = PairLogps(tensor("ref_chosen_logps"), tensor("ref_rejected_logps"))
    counts = PairCounts(tensor("chosen_lengths"), tensor("rejected_lengths"))
    totals = StepTotals(len(inputs["chosen_lengths"]), sum(inputs["chosen_lengths"]))

    output, _ = combine(terms, policy, reference, counts, totals)
    loss = output.per_pair_B.sum() / totals.pairs
    loss.backward()

    def check(ours: torch.Tensor | None, theirs: object) -> None:
        assert ours is not None
        wanted = torch.tensor(theirs, dtype=dtype)
        torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance * 0.1)

    check(loss.detach(), expected["mean_loss"])
    check(policy.chosen_B.grad, expected["grad_policy_chosen_logps"])
    if any(isinstance(term, SigmoidLoss) for term in terms):
        check(policy.rejected_B.grad, expected["grad_policy_rejected_logps"])
    if expected["chosen_rewards"] is not None:  # not every peer's run gave them
        check(output.chosen_rewards_B, expected["chosen_rewards"])
        check(output.rejected_rewards_B, expected["rejected_rewards"])


@given(
    ratio=st.floats(-1000, 1000), other=st.floats(-1000, 1000), beta=st.floats(0.01, 10), smoothing=st.floats(0, 0.49)
)
def test_sigmoid_is_finite_with_finite_gradient_at_any_log_ratio(
    ratio: float, other: float, beta: float, smoothing: float
) -> None:
    chosen = torch.tensor([ratio], requires_grad=True)
    policy = PairLogps(chosen, torch.tensor([other]))
    zeros = PairLogps(torch.zeros(1), torch.zeros(1))
    counts = PairCounts(torch.ones(1), torch.ones(1))
    term = SigmoidLoss(beta=beta, label_smoothing=smoothing)
    output, _ = combine([term], policy, zeros, counts, StepTotals(1, 1))
    output.per_pair_B.sum().backward()
    assert math.isfinite(output.per_pair_B.item())
    assert chosen.grad is not None
    assert math.isfinite(chosen.grad.item())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_sigmoid_of_a_policy_equal_to_its_reference_is_log_two(smoothing: float) -> None:
    same = PairLogps(torch.tensor([-3.0, -70.0]), torch.tensor([-5.0, -20.0]))
    counts = PairCounts(torch.ones(2), torch.ones(2))
    output, _ = combine([SigmoidLoss(beta=0.7, label_smoothing=smoothing)], same, same, counts, StepTotals(2, 2))
    assert output.per_pair_B.tolist() == pytest.approx([math.log(2)] * 2)


def test_sft_per_sequence_is_the_mean_of_answer_means() -> None:
    policy = PairLogps(torch.tensor([-2.0, -12.0]), torch.zeros(2))
    counts = PairCounts(torch.tensor([2.0, 4.0]), torch.zeros(2))
    totals = StepTotals(2, 6)
    by_token, _ = combine([SftLoss()], policy, None, counts, totals)
    by_answer, _ = combine([SftLoss(per_sequence=True)], policy, None, counts, totals)
    assert by_token.per_pair_B.mean().item() == pytest.approx(14 / 6)
    assert by_answer.per_pair_B.mean().item() == pytest.approx((1 + 3) / 2)
