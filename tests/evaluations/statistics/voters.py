"""Simulated voters whose preference is known."""

import numpy as np
from numpy.typing import NDArray


def votes(
    rng: np.random.Generator, shape: tuple[int, ...], mean: float, ties: float = 0.0, spread: float = 0.0
) -> NDArray[np.float64]:
    """Outcomes with this mean, ties as half; the last axis is votes on one prompt, which `spread` makes alike.

    spread: of the prompts' own means around `mean`, which must leave them within what `ties` allows.
    """
    prompts = mean + spread * rng.choice([-1.0, 1.0], size=(*shape[:-1], 1))
    win = prompts - ties / 2
    drawn = rng.random(shape)
    return np.where(drawn < win, 1.0, np.where(drawn < win + ties, 0.5, 0.0))
