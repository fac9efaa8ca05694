"""Losses against the peers' own numbers, recorded in float64 by running the peers' code; and their edge cases."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec.losses import (
    AlphaPoLoss,
    ApoZeroLoss,
    BcoPairLoss,
    CpoForm,
    CpoLoss,
    Divergence,
    ExoPairLoss,
    HingeLoss,
    IpoForm,
    IpoLoss,
    KtoPairLoss,
    Loss,
    LossKind,
    MarginLoss,
    NcaPairLoss,
    OrpoLoss,
    RobustLoss,
    SftLoss,
    SigmoidLoss,
    SigmoidNormLoss,
    SimpoLoss,
)
from tests.workers.peer_cases import CASES, NEEDS_MORE_THAN_A_PAIR, Case, terms_of
from workers.losses import LossOutput, PairCounts, PairLogps, StepTotals, combine

OURS = [(case, terms) for case in CASES if (terms := terms_of(case))]
# TRL's ORPO counts the prompt's tokens into its NLL and takes the odds in float32
SAME = [(case, terms) for case, terms in OURS if (case["peer"], case["loss"]) != ("trl-1.16.0", "orpo")]
TRL_ORPO = [(case, terms) for case, terms in OURS if (case["peer"], case["loss"]) == ("trl-1.16.0", "orpo")]


def name(value: object) -> str | None:
    return f"{value['peer']}-{value['loss']}-{value['params']}" if isinstance(value, dict) else ""


def run(case: Case, terms: list[Loss], dtype: torch.dtype) -> tuple[Tensor, PairLogps, LossOutput]:
    """The step's loss, the policy's log-probs with their gradients, and the output."""
    inputs = case["inputs"]

    def tensor(key: str) -> Tensor:
        return torch.tensor(inputs[key], dtype=dtype)

    policy = PairLogps(tensor("policy_chosen_logps").requires_grad_(), tensor("policy_rejected_logps").requires_grad_())
    reference = None
    if any(term.needs_reference for term in terms):
        reference = PairLogps(tensor("ref_chosen_logps"), tensor("ref_rejected_logps"))
    counts = PairCounts(tensor("chosen_lengths"), tensor("rejected_lengths"))
    totals = StepTotals(len(inputs["chosen_lengths"]), sum(inputs["chosen_lengths"]))
    output, _ = combine(terms, policy, reference, counts, totals)
    loss = output.per_pair_B.sum() / totals.pairs
    loss.backward()
    return loss.detach(), policy, output


def check(ours: Tensor | None, theirs: object, tolerance: float) -> None:
    assert ours is not None
    wanted = torch.tensor(theirs, dtype=ours.dtype)
    torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance * 0.1)


def test_every_recorded_loss_that_a_pair_suffices_for_is_ours() -> None:
    left_out = {case["loss"] for case in CASES if terms_of(case) is None}
    assert {loss for loss in left_out if not any(part in loss for part in NEEDS_MORE_THAN_A_PAIR)} == set()
    assert {term.type for _, terms in OURS for term in terms} == set(LossKind)
    assert len(OURS) == 186


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("case", "terms"), SAME, ids=name)
def test_loss_rewards_and_gradients_equal_the_peer(
    case: Case, terms: list[Loss], dtype: torch.dtype, tolerance: float
) -> None:
    expected = case["outputs"]
    loss, policy, output = run(case, terms, dtype)
    check(loss, expected["mean_loss"], tolerance)
    check(policy.chosen_B.grad, expected["grad_policy_chosen_logps"], tolerance)
    if any(term.type.needs_rejected for term in terms):
        check(policy.rejected_B.grad, expected["grad_policy_rejected_logps"], tolerance)
    if expected["chosen_rewards"] is not None:  # not every peer's run gave them
        check(output.chosen_rewards_B, expected["chosen_rewards"], tolerance)
        check(output.rejected_rewards_B, expected["rejected_rewards"], tolerance)


@pytest.mark.parametrize(("case", "terms"), TRL_ORPO, ids=name)
def test_orpo_differs_from_trl_by_the_prompts_tokens_alone(case: Case, terms: list[Loss]) -> None:
    inputs, expected = case["inputs"], case["outputs"]
    loss, policy, output = run(case, terms, torch.float64)
    answers, prompts = sum(inputs["chosen_lengths"]), sum(map(len, inputs["policy_prompt_token_logps"]))
    logps = sum(inputs["policy_chosen_logps"])
    their_nll = -(logps + sum(map(sum, inputs["policy_prompt_token_logps"]))) / (answers + prompts)
    assert policy.chosen_B.grad is not None

    float32 = 1e-6
    check(loss + logps / answers + their_nll, expected["mean_loss"], float32)
    their_grad = policy.chosen_B.grad + 1 / answers - 1 / (answers + prompts)
    check(their_grad, expected["grad_policy_chosen_logps"], float32)
    check(policy.rejected_B.grad, expected["grad_policy_rejected_logps"], float32)
    check(output.chosen_rewards_B, expected["chosen_rewards"], float32)


def value(term: Loss, chosen: float, rejected: float, tokens: tuple[int, int] = (1, 1)) -> float:
    """The loss in float64 of one pair with these log-ratios."""
    policy = PairLogps(*(torch.tensor([x], dtype=torch.float64) for x in (chosen, rejected)))
    counts = PairCounts(*(torch.tensor([x], dtype=torch.float64) for x in tokens))
    zeros = PairLogps(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    output, _ = combine([term], policy, zeros, counts, StepTotals(1, tokens[0]))
    return output.per_pair_B.item()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_policy_equal_to_its_reference_has_the_loss_log_two(smoothing: float) -> None:
    assert value(SigmoidLoss(beta=0.7, label_smoothing=smoothing), 0, 0) == pytest.approx(math.log(2))
    assert value(RobustLoss(beta=0.7, label_smoothing=smoothing), 0, 0) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [
        ({"f_divergence": "reverse_kl"}, lambda u: u),
        ({"f_divergence": "forward_kl"}, lambda u: 1 - math.exp(-u)),
        ({"f_divergence": "js"}, lambda u: math.log(2 * math.exp(u) / (1 + math.exp(u)))),
        ({"f_divergence": "alpha"}, lambda u: (math.exp(-0.5 * u) - 1) / -0.5),
        ({"f_divergence": "alpha", "f_alpha_divergence_coef": 0.0}, lambda u: 1 - math.exp(-u)),
        ({"f_divergence": "alpha", "f_alpha_divergence_coef": 1.0}, lambda u: u),
        ({"f_divergence": "alpha", "f_alpha_divergence_coef": 1.4}, lambda u: (math.exp(0.4 * u) - 1) / 0.4),
    ],
)
def test_a_divergence_replaces_each_log_ratio(divergence: dict[str, Any], expected: Any) -> None:
    chosen, rejected = 1.7, -0.9
    scores = expected(chosen), expected(rejected)
    sigmoid = SigmoidLoss(beta=0.3, **divergence)
    assert value(sigmoid, chosen, rejected) == pytest.approx(value(SigmoidLoss(beta=0.3), *scores), rel=1e-12)
    for averaged in (IpoLoss, SigmoidNormLoss):
        with_divergence = value(averaged(**divergence), chosen, rejected, (3, 7))
        assert with_divergence == pytest.approx(value(averaged(), *scores, (3, 7)), rel=1e-12)


def test_rewards_are_log_ratios_whatever_the_divergence() -> None:
    policy, reference = PairLogps(torch.tensor([-3.0]), torch.tensor([-9.0])), PairLogps(*torch.zeros(2, 1))
    counts = PairCounts(torch.ones(1), torch.ones(1))
    output, _ = combine([HingeLoss(f_divergence=Divergence.JS)], policy, reference, counts, StepTotals(1, 1))
    assert output.chosen_rewards_B is not None
    assert output.rejected_rewards_B is not None
    assert output.chosen_rewards_B.item() == pytest.approx(-0.3)
    assert output.rejected_rewards_B.item() == pytest.approx(-0.9)


def test_a_reference_free_term_stands_beside_one_with_a_reference() -> None:
    policy, reference = PairLogps(*torch.tensor([[-3.0], [-4.0]])), PairLogps(*torch.tensor([[-8.0], [-2.0]]))
    counts, totals = PairCounts(torch.ones(1), torch.ones(1)), StepTotals(1, 1)
    free, bound = SigmoidLoss(beta=1, reference_free=True), HingeLoss(beta=1)
    _, terms = combine([free, bound], policy, reference, counts, totals)
    assert terms[LossKind.SIGMOID].item() == pytest.approx(math.log1p(math.exp(-1)))
    assert terms[LossKind.HINGE].item() == 0  # margin 7
    _, alone = combine([free], policy, None, counts, totals)
    assert alone[LossKind.SIGMOID].item() == terms[LossKind.SIGMOID].item()


def test_a_missing_reference_is_never_taken_for_zero() -> None:
    policy = PairLogps(torch.zeros(1), torch.zeros(1))
    with pytest.raises(AssertionError):
        combine([NcaPairLoss()], policy, None, PairCounts(torch.ones(1), torch.ones(1)), StepTotals(1, 1))


def test_losses_with_a_target_are_least_there() -> None:
    assert value(IpoLoss(beta=0.25, form=IpoForm.SUM), 3, 1) == 0
    assert value(IpoLoss(beta=0.25), 8, 10, (2, 5)) == 0
    assert value(CpoLoss(beta=0.25, form=CpoForm.IPO), -8, -20, (2, 3.3333333333333335)) == pytest.approx(0)
    assert value(ExoPairLoss(beta=1, label_smoothing=0.2), math.log(4), 0) == pytest.approx(0, abs=1e-7)
    assert value(HingeLoss(beta=0.5), 2, 0) == 0
    nca = [value(NcaPairLoss(beta=1), math.log(2) + shift, 0) for shift in (-0.1, 0, 0.1)]
    assert min(nca) == nca[1]


def test_kto_pair_is_apo_zero() -> None:
    assert value(KtoPairLoss(beta=0.2), 3, -5) == value(ApoZeroLoss(beta=0.2), 3, -5)


def test_alphapo_without_its_bend_is_simpo() -> None:
    simpo = value(SimpoLoss(beta=2, gamma=0.3), -12, -30, (10, 11))
    assert value(AlphaPoLoss(beta=2, gamma=0.3, alpha=0), -12, -30, (10, 11)) == simpo
    assert value(AlphaPoLoss(beta=2, gamma=0.3, alpha=1e-9), -12, -30, (10, 11)) == pytest.approx(simpo)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_of_losses_without_a_reference_is_that_of_sigmoid(smoothing: float) -> None:
    sigmoid = SigmoidLoss(beta=0.3, label_smoothing=smoothing, reference_free=True)
    assert value(CpoLoss(beta=0.3, label_smoothing=smoothing), -9, -12) == value(sigmoid, -9, -12)
    simpo = SimpoLoss(beta=0.3, gamma=0, label_smoothing=smoothing)
    assert value(simpo, -9, -12) == pytest.approx(value(sigmoid, -9, -12))


@pytest.mark.parametrize("logp", [0.0, -1e-9, -1e-3])
def test_orpo_of_a_certain_answer_is_finite(logp: float) -> None:
    assert math.isfinite(value(OrpoLoss(), logp, -1))
    assert math.isfinite(value(OrpoLoss(), -1, logp))
    assert value(OrpoLoss(), logp, -1) < value(OrpoLoss(), -1, logp)


def test_sft_per_sequence_is_the_mean_of_answer_means() -> None:
    policy = PairLogps(torch.tensor([-2.0, -12.0]), torch.zeros(2))
    counts = PairCounts(torch.tensor([2.0, 4.0]), torch.zeros(2))
    totals = StepTotals(2, 6)
    by_token, _ = combine([SftLoss()], policy, None, counts, totals)
    by_answer, _ = combine([SftLoss(per_sequence=True)], policy, None, counts, totals)
    assert by_token.per_pair_B.mean().item() == pytest.approx(14 / 6)
    assert by_answer.per_pair_B.mean().item() == pytest.approx((1 + 3) / 2)


def test_all_margin_losses_have_a_divergence_and_can_do_without_a_reference() -> None:
    kinds = {declared.model_fields["type"].default for declared in MarginLoss.__subclasses__()}
    assert kinds == {"sigmoid", "hinge", "ipo", "exo_pair", "robust", "discopop", "sigmoid_norm"}
    assert "reference_free" not in BcoPairLoss.model_fields
