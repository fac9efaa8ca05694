"""Whether there are enough votes: a test and an interval that hold however often one looks, and whenever one stops."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

_TRUNCATION = 0.75  # of the largest bet that cannot lose everything
_GRID = 1001


@dataclass(frozen=True)
class Sequential:
    """low, high: the confidence sequence now. p_bound: anytime-valid p-value of "both models win equally often", the
    lowest so far. decision: which model is better, once the sequence has left out 0.5; it stays."""

    num: int
    low: float
    high: float
    e_value: float
    p_bound: float
    decision: Literal["first", "second"] | None
    decided_at: int | None


def sequential(outcomes: ArrayLike, alpha: float = 0.05) -> Sequential:
    """Of outcomes in the order in which they came, each in [0, 1].

    The mean is tested by betting against it (Waudby-Smith & Ramdas 2023, "Estimating means of bounded random variables
    by betting", JRSS B, arXiv 2010.09686): the hedged capital process with predictable plug-in bets. If each outcome's
    expectation given those before is 0.5, the capital exceeds 1/alpha at any time with probability alpha at most
    (Ville 1939), so one may look after each vote and stop at will. No approximation is made: it holds from the first
    vote on.

    Outcomes must be one for each prompt, in an order that does not depend on them: several votes on a prompt say partly
    the same, and would be counted as news.
    """
    x = np.asarray(outcomes, float)
    log_better, log_worse = capital(x, 0.5)
    log_e = np.maximum(log_better, log_worse) - math.log(2)
    highest = float(log_e.max(initial=0.0))
    low, high = _confidence_sequence(x, alpha)
    beyond = np.flatnonzero(log_e >= math.log(1 / alpha))
    decided_at = int(beyond[0]) + 1 if beyond.size else None
    decision: Literal["first", "second"] | None = None
    if decided_at is not None:
        decision = "first" if log_better[decided_at - 1] > log_worse[decided_at - 1] else "second"
    return Sequential(
        num=int(x.size),
        low=low,
        high=high,
        e_value=math.exp(min(float(log_e[-1]) if x.size else 0.0, 700.0)),
        p_bound=min(1.0, math.exp(-highest)),
        decision=decision,
        decided_at=decided_at,
    )


def capital(outcomes: ArrayLike, mean: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of what one unit has become after each outcome: bet on more than `mean`, and bet on less.

    outcomes: [..., n], in [0, 1]; each is an array of the same shape. Each is a test martingale where every outcome's
    conditional expectation is `mean`, and a supermartingale where it is less (more).
    """
    x = np.asarray(outcomes, float)
    bets = _bets(x)
    up = np.minimum(bets, _TRUNCATION / mean) if mean > 0 else bets
    down = np.minimum(bets, _TRUNCATION / (1 - mean)) if mean < 1 else bets
    better = np.cumsum(np.log1p(up * (x - mean)), axis=-1)
    worse = np.cumsum(np.log1p(-down * (x - mean)), axis=-1)
    return better, worse


def _bets(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Predictable plug-in bets: each from the outcomes before it (their equation 26, for the hedge's alpha of 0.05)."""
    count = np.arange(1, x.shape[-1] + 1)
    means = (0.5 + np.cumsum(x, axis=-1)) / (count + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2, axis=-1)) / (count + 1)
    before = np.concatenate([np.full((*x.shape[:-1], 1), 0.25), variances[..., :-1]], axis=-1)
    bets: NDArray[np.float64] = np.sqrt(2 * math.log(2 / 0.05) / (before * count * np.log1p(count)))
    return bets


def _confidence_sequence(x: NDArray[np.float64], alpha: float) -> tuple[float, float]:
    """The means that no look so far has ruled out: running intersection, on a grid, widened by one of its cells."""
    kept = np.ones(_GRID, bool)
    means = np.linspace(0, 1, _GRID)
    log_up, log_down = np.zeros(_GRID), np.zeros(_GRID)
    inner = np.clip(means, 1e-9, 1 - 1e-9)
    bound = math.log(2 / alpha)
    for value, bet in zip(x, _bets(x), strict=True):
        log_up += np.log1p(np.minimum(bet, _TRUNCATION / inner) * (value - inner))
        log_down += np.log1p(-np.minimum(bet, _TRUNCATION / (1 - inner)) * (value - inner))
        kept &= np.maximum(log_up, log_down) < bound
    left = np.flatnonzero(kept)
    if not left.size:  # only outcomes that have no common mean can rule out every one
        return 0.0, 1.0
    step = 1 / (_GRID - 1)
    return max(0.0, float(means[left[0]]) - step), min(1.0, float(means[left[-1]]) + step)
