"""Losses: pure functions of policy and reference log-probs. `combine` adds up the terms of a job."""

from collections.abc import Sequence

import torch

from service.spec import Loss, LossKind, SftLoss, SigmoidLoss
from workers.losses.base import LossOutput, PairCounts, PairLogps, StepTotals
from workers.losses.sft import sft_loss
from workers.losses.sigmoid import sigmoid_loss

__all__ = ["LossOutput", "PairCounts", "PairLogps", "StepTotals", "combine", "evaluate"]


def evaluate(
    term: Loss, policy: PairLogps, reference: PairLogps | None, counts: PairCounts, totals: StepTotals
) -> LossOutput:
    """One term, unweighted."""
    match term:
        case SigmoidLoss():
            assert reference is not None, "a job whose losses need a reference was started without one"
            return sigmoid_loss(term, policy, reference)
        case SftLoss():
            return sft_loss(term, policy, counts, totals)


def combine(
    terms: Sequence[Loss],
    policy: PairLogps,
    reference: PairLogps | None,
    counts: PairCounts,
    totals: StepTotals,
) -> tuple[LossOutput, dict[LossKind, torch.Tensor]]:
    """The weighted sum of all terms, and each term's own per-pair loss (unweighted, detached).

    Rewards are those of the first term that has any.
    """
    outputs = {term.type: evaluate(term, policy, reference, counts, totals) for term in terms}
    total_B = torch.stack([term.weight * outputs[term.type].per_pair_B for term in terms]).sum(0)
    rewarded = next((output for output in outputs.values() if output.chosen_rewards_B is not None), None)
    combined = LossOutput(
        total_B,
        rewarded.chosen_rewards_B if rewarded else None,
        rewarded.rejected_rewards_B if rewarded else None,
    )
    return combined, {kind: output.per_pair_B.detach() for kind, output in outputs.items()}
