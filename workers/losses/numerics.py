"""exp and log where they would overflow or lose all digits."""

import torch
from torch import Tensor

_CAP = {torch.float32: 36.0, torch.float64: 340.0}


def capped_expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, growing like a logarithm beyond a cap of 36 (float32) or 340 (float64).

    Continuous with its first derivative, strictly increasing, finite with a finite gradient at any finite x. The cap
    leaves room for the squares of this value (ipo) and of its gradient (the gradient norm).
    """
    cap = _CAP[x.dtype]
    beyond = torch.relu(x - cap)
    return torch.expm1(x.clamp(max=cap)) + torch.exp(x.new_tensor(cap)) * torch.log1p(beyond)


def log1m_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for log-probabilities x <= 0; at x = 0 as at one rounding step below it."""
    return torch.log(-torch.expm1(x.clamp(max=-torch.finfo(x.dtype).eps)))
