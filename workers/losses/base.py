"""What a loss sees and what it gives back."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probs of the counted answer tokens of B pairs under one model. Shape suffix _B: [B]."""

    chosen_B: Tensor
    rejected_B: Tensor

    def at_least_float32(self) -> "PairLogps":
        """In float32, unless it is finer: half precisions cannot hold a sum of log-probs."""
        return PairLogps(*(x.to(torch.promote_types(x.dtype, torch.float32)) for x in (self.chosen_B, self.rejected_B)))

    def minus(self, reference: "PairLogps") -> "PairLogps":
        """Log-ratios."""
        return PairLogps(self.chosen_B - reference.chosen_B, self.rejected_B - reference.rejected_B)

    def per_token(self, counts: "PairCounts") -> "PairLogps":
        return PairLogps(self.chosen_B / counts.chosen_B, self.rejected_B / counts.rejected_B)

    @property
    def margin_B(self) -> Tensor:
        return self.chosen_B - self.rejected_B


@dataclass(frozen=True)
class PairCounts:
    """How many answer tokens were summed over, as floats. Shape [B]."""

    chosen_B: Tensor
    rejected_B: Tensor


@dataclass(frozen=True)
class StepTotals:
    """What the means of one optimizer step divide by: counts over all workers and micro-batches, so that neither
    packing nor accumulation changes the result."""

    pairs: int
    chosen_tokens: int


@dataclass(frozen=True)
class LossOutput:
    """`per_pair_B` is scaled so that its sum over the step divided by `StepTotals.pairs` is the step's loss.

    Rewards are detached: beta times what the loss compares, that is log-ratios to the reference, whatever the
    divergence; without a reference, log-probs, per token where the loss takes them so. None for `sft`.
    """

    per_pair_B: Tensor
    chosen_rewards_B: Tensor | None = None
    rejected_rewards_B: Tensor | None = None


def rewarded(per_pair_B: Tensor, beta: float, compared: PairLogps) -> LossOutput:
    return LossOutput(per_pair_B, beta * compared.chosen_B.detach(), beta * compared.rejected_B.detach())
