"""Losses: pure functions of policy and reference log-probs. `combine` adds up the terms of a job."""

from collections.abc import Sequence

import torch
from torch import Tensor

from service.spec.losses import (
    AlphaPoLoss,
    ApoDownLoss,
    ApoZeroLoss,
    BcoPairLoss,
    CpoLoss,
    DiscoPopLoss,
    ExoPairLoss,
    HingeLoss,
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
    SppoHardLoss,
)
from workers.losses import likelihood, margin, rewards
from workers.losses.base import LossOutput, PairCounts, PairLogps, StepTotals, rewarded

__all__ = ["LossOutput", "PairCounts", "PairLogps", "StepTotals", "combine", "evaluate"]

OfRatios = (
    SigmoidLoss
    | HingeLoss
    | IpoLoss
    | ExoPairLoss
    | RobustLoss
    | DiscoPopLoss
    | SigmoidNormLoss
    | NcaPairLoss
    | BcoPairLoss
    | SppoHardLoss
    | ApoZeroLoss
    | ApoDownLoss
    | KtoPairLoss
)


def combine(
    terms: Sequence[Loss],
    policy: PairLogps,
    reference: PairLogps | None,
    counts: PairCounts,
    totals: StepTotals,
) -> tuple[LossOutput, dict[LossKind, Tensor]]:
    """The weighted sum of all terms, and each term's own per-pair loss (unweighted, detached).

    reference: may be None if no term needs it; a term that needs none does not read it.
    Computed in float32 at least. Rewards are those of the first term that has any.
    """
    outputs = {term.type: evaluate(term, policy, reference, counts, totals) for term in terms}
    total_B = torch.stack([term.weight * outputs[term.type].per_pair_B for term in terms]).sum(0)
    first = next((output for output in outputs.values() if output.chosen_rewards_B is not None), None)
    combined = LossOutput(
        total_B,
        first.chosen_rewards_B if first else None,
        first.rejected_rewards_B if first else None,
    )
    return combined, {kind: output.per_pair_B.detach() for kind, output in outputs.items()}


def evaluate(
    term: Loss, policy: PairLogps, reference: PairLogps | None, counts: PairCounts, totals: StepTotals
) -> LossOutput:
    """One term, unweighted."""
    policy = policy.at_least_float32()
    match term:
        case SimpoLoss():
            return likelihood.simpo(term, policy, counts)
        case AlphaPoLoss():
            return likelihood.alphapo(term, policy, counts)
        case CpoLoss():
            return likelihood.cpo(term, policy, counts)
        case OrpoLoss():
            return likelihood.orpo(term, policy, counts, totals)
        case SftLoss():
            return likelihood.sft(term, policy, counts, totals)
    ratios = policy
    if term.needs_reference:
        assert reference is not None, "a job whose losses need a reference was started without one"
        ratios = policy.minus(reference.at_least_float32())
    return rewarded(_of_ratios(term, ratios, counts), term.beta, ratios)


def _of_ratios(term: OfRatios, ratios: PairLogps, counts: PairCounts) -> Tensor:
    scores = margin.divergence_scores(term, ratios) if isinstance(term, MarginLoss) else ratios
    match term:
        case SigmoidLoss():
            return margin.sigmoid(term, scores)
        case HingeLoss():
            return margin.hinge(term, scores)
        case IpoLoss():
            return margin.ipo(term, scores, counts)
        case ExoPairLoss():
            return margin.exo_pair(term, scores)
        case RobustLoss():
            return margin.robust(term, scores)
        case DiscoPopLoss():
            return margin.discopop(term, scores)
        case SigmoidNormLoss():
            return margin.sigmoid_norm(term, scores, counts)
        case NcaPairLoss():
            return rewards.nca_pair(term.beta, ratios)
        case BcoPairLoss():
            return rewards.bco_pair(term.beta, ratios)
        case SppoHardLoss():
            return rewards.sppo_hard(term.beta, ratios)
        case ApoZeroLoss() | KtoPairLoss():
            return rewards.apo_zero(term.beta, ratios)
        case ApoDownLoss():
            return rewards.apo_down(term.beta, ratios)
