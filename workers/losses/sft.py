"""Supervised fine-tuning on the chosen answers."""

from service.spec import SftLoss
from workers.losses.base import LossOutput, PairCounts, PairLogps, StepTotals


def sft_loss(term: SftLoss, policy: PairLogps, counts: PairCounts, totals: StepTotals) -> LossOutput:
    """-sum log pi(y_w) / sum |y_w|: the mean over every counted token of the optimizer step.

    With `per_sequence`, the mean over answers of -log pi(y_w) / |y_w|, as LLaMA-Factory and OpenRLHF compute it.
    """
    if term.per_sequence:
        return LossOutput(-policy.chosen_B / counts.chosen_B)
    return LossOutput(-policy.chosen_B * (totals.pairs / totals.chosen_tokens))
