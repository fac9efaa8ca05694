"""Losses: pure functions of policy and reference log-probs. `combine` adds up the terms of a job."""

from workers.losses.base import Facts, Logps, LossOutput, PairLogps, RunningMean, StepTotals
from workers.losses.combine import combine

__all__ = ["Facts", "Logps", "LossOutput", "PairLogps", "RunningMean", "StepTotals", "combine"]
