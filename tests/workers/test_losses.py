"""Losses against the peers' own numbers, recorded in float64 by running the peers' code; and their edge cases."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from service.spec.losses import (
    AlphaPoLoss,
    ApoZeroLoss,
    BcoLoss,
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
    PlackettLuceLoss,
    RobustLoss,
    SftLoss,
    SigmoidLoss,
    SigmoidNormLoss,
    SimpoLoss,
)
from tests.workers.loss_inputs import facts, logps, pairs
from tests.workers.peer_cases import CASES, NOT_OURS, Case, terms_of
from workers.losses import Facts, Logps, RunningMean, StepTotals, combine

OURS = [(case, terms) for case in CASES if (terms := terms_of(case))]


def name(value: object) -> str | None:
    return f"{value['peer']}-{value['loss']}-{value['params']}" if isinstance(value, dict) else ""


class Run:
    """Our numbers for a case."""

    def __init__(self, case: Case, terms: list[Loss], dtype: torch.dtype) -> None:
        inputs = case["inputs"]
        unpaired = terms[0].type.data_shape == "unpaired"

        def tensor(key: str) -> Tensor:
            return torch.tensor(inputs[key], dtype=dtype)

        self.chosen_B = tensor("policy_chosen_logps").requires_grad_()
        self.rejected_B = tensor("policy_rejected_logps").requires_grad_()
        counts = [inputs["chosen_lengths"], inputs["rejected_lengths"]]
        if unpaired:  # the chosen rows, then the rejected, each beside an answer to another prompt
            answers_B = torch.cat([self.chosen_B, self.rejected_B])
            policy = Logps(torch.stack([answers_B, tensor("policy_KL_logps")], 1))
            references = torch.cat([tensor("ref_chosen_logps"), tensor("ref_rejected_logps")])
            reference = Logps(torch.stack([references, tensor("ref_KL_logps")], 1))
            one_side = len(self.chosen_B)
            labels = [True] * one_side + [False] * one_side
            known = facts([[n, 1] for side in counts for n in side], desirable=labels, dtype=dtype)
        else:
            prompts = inputs.get("policy_prompt_token_logps", [[]] * len(self.chosen_B))
            policy = Logps(
                torch.stack([self.chosen_B, self.rejected_B], 1),
                prompt_B=torch.tensor([math.fsum(tokens) for tokens in prompts], dtype=dtype),
            )
            reference = pairs(tensor("ref_chosen_logps"), tensor("ref_rejected_logps"))
            known = facts(list(zip(*counts, strict=True)), prompt=[len(tokens) for tokens in prompts], dtype=dtype)
        needed = any(term.needs_reference for term in terms)
        totals = StepTotals.of(known)
        self.output = combine(terms, policy, reference if needed else None, known, totals)
        self.loss = self.output.per_example_B.sum() / totals.weight
        self.loss.backward()


def check(ours: Tensor | None, theirs: object, tolerance: float) -> None:
    assert ours is not None
    wanted = torch.tensor(theirs, dtype=ours.dtype)
    torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance * 0.1)


def test_every_recorded_loss_that_has_no_third_answer_is_ours() -> None:
    left_out = {case["loss"] for case in CASES if terms_of(case) is None}
    assert {loss for loss in left_out if not any(part in loss for part in NOT_OURS)} == set()
    beyond_the_peers = {LossKind.PLACKETT_LUCE, LossKind.BCO}
    assert {term.type for _, terms in OURS for term in terms} == set(LossKind) - beyond_the_peers
    assert len(OURS) == 210


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("case", "terms"), OURS, ids=name)
def test_loss_rewards_and_gradients_equal_the_peer(
    case: Case, terms: list[Loss], dtype: torch.dtype, tolerance: float
) -> None:
    expected = case["outputs"]
    ours = Run(case, terms, dtype)
    if (case["peer"], case["loss"]) == ("trl-1.16.0", "orpo"):
        tolerance = max(tolerance, 1e-6)  # it takes the odds in float32
    check(ours.loss, expected["mean_loss"], tolerance)
    check(ours.chosen_B.grad, expected["grad_policy_chosen_logps"], tolerance)
    if terms[0].type.data_shape != "answers":
        check(ours.rejected_B.grad, expected["grad_policy_rejected_logps"], tolerance)
    if expected["chosen_rewards"] is not None:  # not every peer's run gave them
        check(ours.output.chosen_rewards_B, expected["chosen_rewards"], tolerance)
        check(ours.output.rejected_rewards_B, expected["rejected_rewards"], tolerance)
    if case["loss"] == "kto/kto":
        assert ours.output.metrics["kto_kl"] == pytest.approx(expected["metrics"]["kl"], rel=tolerance)


def one(term: Loss, policy: Logps, known: Facts, reference: Logps | None = None) -> Tensor:
    """The loss of each row against a reference of zeros, or another."""
    return combine([term], policy, reference or policy.zeros(), known, StepTotals.of(known)).per_example_B


def value(term: Loss, chosen: float, rejected: float, tokens: tuple[int, int] = (1, 1)) -> float:
    """The loss in float64 of one pair with these log-ratios."""
    return one(term, pairs(logps(chosen), logps(rejected)), facts([tokens])).item()


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
    policy, known = pairs([-3.0], [-9.0]), facts([[1, 1]])
    output = combine([HingeLoss(f_divergence=Divergence.JS)], policy, policy.zeros(), known, StepTotals.of(known))
    assert output.chosen_rewards_B is not None
    assert output.rejected_rewards_B is not None
    assert output.chosen_rewards_B.item() == pytest.approx(-0.3)
    assert output.rejected_rewards_B.item() == pytest.approx(-0.9)


def test_a_reference_free_term_stands_beside_one_with_a_reference() -> None:
    policy, reference, known = pairs([-3.0], [-4.0]), pairs([-8.0], [-2.0]), facts([[1, 1]])
    free, bound = SigmoidLoss(beta=1, reference_free=True), HingeLoss(beta=1)
    terms = combine([free, bound], policy, reference, known, StepTotals.of(known)).terms
    assert terms[LossKind.SIGMOID].item() == pytest.approx(math.log1p(math.exp(-1)))
    assert terms[LossKind.HINGE].item() == 0  # margin 7
    alone = combine([free], policy, None, known, StepTotals.of(known)).terms
    assert alone[LossKind.SIGMOID].item() == terms[LossKind.SIGMOID].item()


def test_one_loss_may_stand_twice_with_different_options() -> None:
    policy, known = pairs([4.0], [2.0]), facts([[1, 1]])
    terms: list[Loss] = [
        BcoPairLoss(beta=0.5, reward_baseline="running_mean"),
        BcoPairLoss(beta=1, reward_baseline="running_mean", weight=3),
    ]
    both = combine(terms, policy, policy.zeros(), known, StepTotals.of(known))
    assert both.baselines == {"bco_pair": RunningMean(1.5, 2), "bco_pair_2": RunningMean(3, 2)}
    expected = one(terms[0], policy, known) + one(terms[1], policy, known)
    assert both.per_example_B.item() == pytest.approx(expected.item())
    assert set(both.terms) == {"bco_pair", "bco_pair_2"}


def test_a_missing_reference_is_never_taken_for_zero() -> None:
    with pytest.raises(AssertionError):
        combine([NcaPairLoss()], pairs([0.0], [0.0]), None, facts([[1, 1]]), StepTotals.of(facts([[1, 1]])))


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
    policy, known = Logps(torch.tensor([[-2.0], [-12.0]])), facts([[2], [4]])
    assert one(SftLoss(), policy, known).mean().item() == pytest.approx(14 / 6)
    assert one(SftLoss(per_sequence=True), policy, known).mean().item() == pytest.approx((1 + 3) / 2)


def test_sft_of_unpaired_rows_learns_the_desirable_answers() -> None:
    policy = Logps(torch.tensor([[-2.0], [-12.0], [-7.0]]))
    known = facts([[2], [4], [1]], desirable=[True, True, False])
    assert one(SftLoss(), policy, known).mean().item() == pytest.approx(14 / 6)
    assert one(SftLoss(per_sequence=True), policy, known).mean().item() == pytest.approx((1 + 3) / 2)
    only_bad = facts([[1]], desirable=[False])
    assert one(SftLoss(), Logps(torch.tensor([[-7.0]])), only_bad).item() == 0


def test_ld_alpha_counts_the_tokens_beyond_the_shorter_answer_less_in_policy_and_reference() -> None:
    policy = Logps(logps(-10.0, -4.0)[None], shared_BK=logps(-6.0, -4.0)[None])
    reference = Logps(logps(-9.0, -5.0)[None], shared_BK=logps(-3.0, -5.0)[None])
    known = facts([[5, 3]])
    desensitised = one(SigmoidLoss(beta=0.5, ld_alpha=0.25), policy, known, reference)
    ratio = (-6 - 0.25 * 4) - (-3 - 0.25 * 6) - (-4 + 5)
    assert desensitised.item() == pytest.approx(math.log1p(math.exp(-0.5 * ratio)))
    full = one(SigmoidLoss(beta=0.5), policy, known, reference)
    assert one(SigmoidLoss(beta=0.5, ld_alpha=1.0), policy, known, reference).item() == pytest.approx(full.item())


def test_wpo_weighs_a_pair_by_how_likely_the_policy_writes_it() -> None:
    policy = Logps(logps(-3.0, -4.0)[None], certainty_BK=logps(-0.2, -0.9)[None])
    weighted = one(IpoLoss(wpo=True), policy, facts([[1, 1]]))
    assert weighted.item() == pytest.approx(math.exp(-1.1) * one(IpoLoss(), policy, facts([[1, 1]])).item())


@pytest.mark.parametrize(
    "term", [SigmoidLoss(beta=0.3), HingeLoss(beta=0.3), RobustLoss(beta=0.3), IpoLoss(beta=0.3, form=IpoForm.SUM)]
)
def test_a_margin_asks_for_that_much_reward_more(term: Loss) -> None:
    asked = one(term, pairs([-3.0], [-8.0]), facts([[1, 1]], margins=[0.6]))
    assert asked.item() == pytest.approx(value(term, -3, -6))  # 0.6 is 2 times beta
    for free in (SimpoLoss(beta=0.3), CpoLoss(beta=0.3), CpoLoss(beta=0.3, form=CpoForm.IPO)):
        asked = one(free, pairs([-3.0], [-8.0]), facts([[1, 1]], margins=[0.6]))
        assert asked.item() == pytest.approx(value(free, -3, -6))


def test_a_ranking_of_two_is_sigmoid_with_all_digits() -> None:
    for chosen, rejected in ((-3.0, -4.0), (90.0, -80.0), (-700.0, 300.0)):
        ranked = value(PlackettLuceLoss(beta=0.7), chosen, rejected)
        assert ranked == pytest.approx(value(SigmoidLoss(beta=0.7), chosen, rejected), rel=1e-12)


def test_a_ranking_of_four_is_the_chance_of_its_order() -> None:
    rewards = [0.3, -0.2, 0.9, -1.4]
    chance = 1.0
    for j in range(4):
        chance *= math.exp(rewards[j]) / sum(math.exp(r) for r in rewards[j:])
    policy, known = Logps(logps(*rewards)[None] / 0.5), facts([[3, 3, 3, 3]])
    assert one(PlackettLuceLoss(beta=0.5), policy, known).item() == pytest.approx(-math.log(chance))


def test_rankings_of_different_lengths_stand_beside_each_other() -> None:
    both = Logps(torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -2.0, 0.0]]).requires_grad_())
    known = facts([[1, 1, 1], [1, 1, 0]])
    loss = one(PlackettLuceLoss(beta=1), both, known)
    loss.sum().backward()
    assert loss[1].item() == pytest.approx(math.log1p(math.exp(-1)))
    assert both.sums_BK.grad is not None
    assert both.sums_BK.grad[1, 2] == 0
    output = combine(
        [PlackettLuceLoss(beta=1)], both, both.zeros(), facts([[1, 1, 1], [1, 1, 0]]), StepTotals(2, 2, 2, 0)
    )
    assert output.rejected_rewards_B is not None
    assert output.rejected_rewards_B.tolist() == [-3, -2]  # the worst there is


def test_the_running_mean_of_rewards_goes_on_from_step_to_step() -> None:
    term, known = BcoPairLoss(beta=0.5, reward_baseline="running_mean"), facts([[1, 1]])
    first = combine([term], pairs([4.0], [2.0]), pairs([0.0], [0.0]), known, StepTotals.of(known))
    assert first.baselines == {LossKind.BCO_PAIR: RunningMean(1.5, 2)}
    expected = math.log1p(math.exp(-(2 - 1.5))) + math.log1p(math.exp(1 - 1.5))
    assert first.per_example_B.item() == pytest.approx(expected)
    second = combine([term], pairs([0.0], [-8.0]), pairs([0.0], [0.0]), known, StepTotals.of(known), first.baselines)
    assert second.baselines == {LossKind.BCO_PAIR: RunningMean(-0.25, 4)}


def test_bco_of_single_answers_is_that_of_pairs_half_and_half() -> None:
    paired = one(BcoPairLoss(beta=0.5, reward_baseline="running_mean"), pairs([4.0], [2.0]), facts([[1, 1]]))
    single = one(BcoLoss(beta=0.5), Logps(torch.tensor([[4.0], [2.0]])), facts([[1], [1]], desirable=[True, False]))
    assert single.mean().item() == pytest.approx(paired.item() / 2)


def test_all_margin_losses_have_a_divergence_and_can_do_without_a_reference() -> None:
    kinds = {declared.model_fields["type"].default for declared in MarginLoss.__subclasses__()}
    assert kinds == {"sigmoid", "hinge", "ipo", "exo_pair", "robust", "discopop", "sigmoid_norm"}
    assert "reference_free" not in BcoPairLoss.model_fields
