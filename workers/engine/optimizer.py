"""AdamW and its learning-rate schedule."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from service.spec import AlignmentJob, Schedule


def make_optimizer(job: AlignmentJob, parameters: Mapping[str, Tensor]) -> torch.optim.AdamW:
    """Weight decay on matrices only: norms and biases are left alone (Loshchilov & Hutter, arXiv 1711.05101)."""
    matrices = [p for p in parameters.values() if p.ndim >= 2]
    others = [p for p in parameters.values() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": job.training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=job.learning_rate, fused=True)


def learning_rate(job: AlignmentJob, step: int, num_steps: int) -> float:
    """Rate of step 0, 1, ... num_steps - 1: a linear rise over the warm-up, then the schedule, which would reach zero
    at `num_steps`."""
    warmup = math.ceil(job.training.warmup_ratio * num_steps)
    if step < warmup:
        return job.learning_rate * (step + 1) / warmup
    remaining = 1 - (step - warmup) / max(1, num_steps - warmup)
    match job.training.schedule:
        case Schedule.CONSTANT:
            return job.learning_rate
        case Schedule.LINEAR:
            return job.learning_rate * remaining
        case Schedule.COSINE:
            return job.learning_rate * 0.5 * (1 - math.cos(math.pi * remaining))
