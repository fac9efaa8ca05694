"""The terms of a job, each sent to its function, and their weighted sum."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from service.spec.losses import (
    AlphaPoLoss,
    AotLoss,
    AotUnpairedLoss,
    ApoDownLoss,
    ApoZeroLoss,
    ApoZeroUnpairedLoss,
    BcoLoss,
    BcoPairLoss,
    CpoLoss,
    DiscoPopLoss,
    ExoPairLoss,
    HingeLoss,
    IpoLoss,
    KtoLoss,
    KtoPairLoss,
    Loss,
    MarginLoss,
    NcaPairLoss,
    OrpoLoss,
    PlackettLuceLoss,
    RewardBaseline,
    RobustLoss,
    SftLoss,
    SigmoidLoss,
    SigmoidNormLoss,
    SimpoLoss,
    SppoHardLoss,
    WeightedRatioLoss,
    term_names,
)
from workers.losses import coupled, likelihood, margin, ranked, rewards, unpaired
from workers.losses.base import (
    Facts,
    Logps,
    LossOutput,
    PairLogps,
    RunningMean,
    StepTotals,
    TermOutput,
    rewarded,
)

OfMargin = SigmoidLoss | HingeLoss | IpoLoss | ExoPairLoss | RobustLoss | DiscoPopLoss | SigmoidNormLoss
OfRewards = NcaPairLoss | SppoHardLoss | ApoZeroLoss | ApoDownLoss | KtoPairLoss
OfUnpaired = KtoLoss | ApoZeroUnpairedLoss | BcoLoss
Baselines = Mapping[str, RunningMean]


def combine(
    terms: Sequence[Loss],
    policy: Logps,
    reference: Logps | None,
    facts: Facts,
    totals: StepTotals,
    baselines: Baselines | None = None,
) -> LossOutput:
    """The weighted sum of all terms over the given examples, which may be a part of an optimizer step, unless a term
    `couples_rows`: then they must be the whole of it.

    reference: may be None if no term needs it; a term that needs none does not read it.
    baselines: by the terms' names (`term_names`), the running means so far; the output holds the new ones.
    Computed in float32 at least.
    """
    named = dict(zip(term_names(terms), terms, strict=True))
    baselines = baselines or {}
    outputs = {
        name: _evaluate(term, policy, reference, facts, totals, baselines.get(name, RunningMean()))
        for name, term in named.items()
    }
    scaled = {name: facts.weights_B * output.per_example_B for name, output in outputs.items()}
    first = next(
        (output for output in outputs.values() if output.chosen_rewards_B is not None), TermOutput(policy.sums_BK)
    )
    return LossOutput(
        per_example_B=torch.stack([term.weight * scaled[name] for name, term in named.items()]).sum(0),
        terms={name: per_example_B.detach() for name, per_example_B in scaled.items()},
        chosen_rewards_B=first.chosen_rewards_B if first else None,
        rejected_rewards_B=first.rejected_rewards_B if first else None,
        baselines={name: output.baseline for name, output in outputs.items() if output.baseline},
        metrics={name: value for output in outputs.values() for name, value in (output.metrics or {}).items()},
    )


def _evaluate(
    term: Loss, policy: Logps, reference: Logps | None, facts: Facts, totals: StepTotals, before: RunningMean
) -> TermOutput:
    """One term, unweighted."""
    match term:
        case SimpoLoss():
            return likelihood.simpo(term, policy, facts)
        case AlphaPoLoss():
            return likelihood.alphapo(term, policy, facts)
        case CpoLoss():
            return likelihood.cpo(term, policy, facts)
        case OrpoLoss():
            return likelihood.orpo(term, policy, facts, totals)
        case SftLoss():
            return likelihood.sft(term, policy, facts, totals)
    assert reference is not None or not term.needs_reference, "a job that needs a reference was started without one"
    if reference is None or not term.needs_reference:
        reference = policy.zeros()
    match term:
        case PlackettLuceLoss():
            return _ranked(term, policy.answers() - reference.answers(), facts)
        case KtoLoss() | ApoZeroUnpairedLoss() | BcoLoss():
            return _unpaired(term, policy.answers() - reference.answers(), facts, before)
    compared = policy.pairs(term.ld_alpha)
    against = reference.pairs(term.ld_alpha)
    ratios = compared.minus(against)
    baseline = None
    match term:
        case AotLoss():
            per_pair_B = coupled.aot(term, compared, against)
        case AotUnpairedLoss():
            per_pair_B = coupled.aot_unpaired(term, ratios)
        case BcoPairLoss():
            baseline = _baseline(term, torch.stack([ratios.chosen_B, ratios.rejected_B]), facts.weights_B, before)
            per_pair_B = rewards.bco_pair(term.beta, ratios, baseline.mean if baseline else 0.0)
        case MarginLoss():
            per_pair_B = _of_margin(term, margin.margins(term, ratios, facts))
        case _:
            per_pair_B = _of_rewards(term, ratios)
    if isinstance(term, WeightedRatioLoss) and term.wpo:
        assert policy.certainty_BK is not None
        per_pair_B = per_pair_B * torch.exp(policy.certainty_BK[:, 0] + policy.certainty_BK[:, 1])
    output = rewarded(per_pair_B, term.beta, ratios)
    return TermOutput(output.per_example_B, output.chosen_rewards_B, output.rejected_rewards_B, baseline)


def _of_margin(term: OfMargin, margin_B: Tensor) -> Tensor:
    match term:
        case SigmoidLoss():
            return margin.sigmoid(term, margin_B)
        case HingeLoss():
            return margin.hinge(term, margin_B)
        case IpoLoss():
            return margin.ipo(term, margin_B)
        case ExoPairLoss():
            return margin.exo_pair(term, margin_B)
        case RobustLoss():
            return margin.robust(term, margin_B)
        case DiscoPopLoss():
            return margin.discopop(term, margin_B)
        case SigmoidNormLoss():
            return margin.sigmoid_norm(term, margin_B)


def _of_rewards(term: OfRewards, ratios: PairLogps) -> Tensor:
    match term:
        case NcaPairLoss():
            return rewards.nca_pair(term.beta, ratios)
        case SppoHardLoss():
            return rewards.sppo_hard(term.beta, ratios)
        case ApoZeroLoss() | KtoPairLoss():
            return rewards.apo_zero(term.beta, ratios)
        case ApoDownLoss():
            return rewards.apo_down(term.beta, ratios)


def _ranked(term: PlackettLuceLoss, ratios_BK: Tensor, facts: Facts) -> TermOutput:
    present_BK = facts.counts_BK > 0
    last_B = present_BK.sum(1) - 1
    ends = PairLogps(ratios_BK[:, 0], ratios_BK.gather(1, last_B[:, None]).squeeze(1))
    return rewarded(ranked.plackett_luce(term.beta, ratios_BK, present_BK), term.beta, ends)


def _unpaired(term: OfUnpaired, ratios_BK: Tensor, facts: Facts, before: RunningMean) -> TermOutput:
    ratios_B, desirable_B = ratios_BK[:, 0], facts.desirable_B
    assert desirable_B is not None
    baseline, metrics = None, {}
    match term:
        case KtoLoss():
            metrics["kto_kl"] = kl = coupled.kto_kl(ratios_BK[:, 1], facts.weights_B)
            loss_B = unpaired.kto(term, ratios_B, desirable_B, kl)
        case ApoZeroUnpairedLoss():
            loss_B = unpaired.apo_zero_unpaired(term, ratios_B, desirable_B)
        case BcoLoss():
            baseline = _baseline(term, ratios_B[None], facts.weights_B, before)
            loss_B = unpaired.bco(term.beta, ratios_B, desirable_B, baseline.mean if baseline else 0.0)
    rewards_B = term.beta * ratios_B.detach()
    nan = rewards_B.new_tensor(float("nan"))
    chosen_B, rejected_B = torch.where(desirable_B, rewards_B, nan), torch.where(desirable_B, nan, rewards_B)
    return TermOutput(loss_B, chosen_B, rejected_B, baseline, metrics)


def _baseline(
    term: BcoPairLoss | BcoLoss, ratios_SB: Tensor, weights_B: Tensor, before: RunningMean
) -> RunningMean | None:
    """The running mean with this step's rewards in it; None where the term has none."""
    if term.reward_baseline is RewardBaseline.NONE:
        return None
    return before.after(term.beta * ratios_SB, weights_B.expand_as(ratios_SB))
