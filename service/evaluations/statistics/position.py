"""Whether a judge prefers the answer that it was shown first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.evaluations.statistics.win_rate import Interval, win_rate


@dataclass(frozen=True)
class PositionBias:
    """first_rate: how often the answer shown first was preferred, ties as half; 0.5 without bias.

    biased: the interval leaves out 0.5. consistent: share of pairs judged in both orders with one and the same outcome.
    """

    first_rate: Interval
    biased: bool
    consistent: Interval | None


def position_bias(first_wins: ArrayLike, pairs: ArrayLike, confidence: float = 0.95) -> PositionBias | None:
    """Of verdicts about answers shown in either order, after Zheng et al. (2023, arXiv 2306.05685, section 3.3).

    None without verdicts. A pair that was judged in both orders cancels what its answers are worth, so what is left is
    the order's doing; of pairs that were judged once the order must have been drawn by chance.

    first_wins: 1 where the answer shown first was preferred, 0 where the second was, 0.5 for a tie. pairs: what was
    compared, so that both orders of a pair have the same value.
    """
    first = np.asarray(first_wins, float)
    rate = win_rate(first, pairs, confidence)
    if rate is None:
        return None
    _, pair, counts = np.unique(np.asarray(pairs), return_inverse=True, return_counts=True)
    sums = np.bincount(pair, first)
    both = counts == 2
    # with both orders in, an outcome that does not change gives 1 + 0, 0 + 1 or 0.5 + 0.5
    same = np.isclose(sums[both], 1.0)
    consistent = win_rate(same.astype(float), np.flatnonzero(both), confidence)
    return PositionBias(rate, not rate.low <= 0.5 <= rate.high, consistent)
