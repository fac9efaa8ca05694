"""What a loss sees and what it gives back."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probs of the counted answer tokens of B pairs under one model. Shape suffix _B: [B]."""

    chosen_B: Tensor
    rejected_B: Tensor


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

    Rewards are beta-scaled log-ratios, detached; None for a loss without a reference.
    """

    per_pair_B: Tensor
    chosen_rewards_B: Tensor | None = None
    rejected_rewards_B: Tensor | None = None
