"""What a loss sees, made of a few numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.losses import Facts, Logps


def logps(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def pairs(chosen: Tensor | Sequence[float], rejected: Tensor | Sequence[float]) -> Logps:
    """Log-probs of pairs; their `shared` tokens are all of them."""
    sums_BK = torch.stack([torch.as_tensor(chosen), torch.as_tensor(rejected)], 1)
    return Logps(sums_BK, shared_BK=sums_BK, certainty_BK=torch.full_like(sums_BK, -0.5))


def facts(
    counts: Tensor | Sequence[Sequence[float]],
    *,
    weights: Sequence[float] | None = None,
    margins: Sequence[float] | None = None,
    desirable: Sequence[bool] | None = None,
    prompt: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Facts:
    """counts: [B, K] tokens."""
    counts_BK = torch.as_tensor(counts, dtype=dtype)
    zeros = [0.0] * len(counts_BK)
    return Facts(
        counts_BK=counts_BK,
        weights_B=torch.tensor(weights or [1.0] * len(counts_BK), dtype=dtype),
        margins_B=torch.tensor(margins or zeros, dtype=dtype),
        prompt_counts_B=torch.tensor(prompt or zeros, dtype=dtype),
        desirable_B=None if desirable is None else torch.tensor(desirable),
    )
