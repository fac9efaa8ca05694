"""Whether judges agree beyond chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """1 is full agreement, 0 what chance gives. num_items: those that two judges or more have judged."""

    estimate: float
    low: float
    high: float
    num_items: int


def krippendorff_alpha(
    ratings: ArrayLike, metric: Literal["nominal", "interval"] = "interval", confidence: float = 0.95, seed: int = 0
) -> Agreement | None:
    """Krippendorff's alpha of any number of judges, of whom each may have left items out (Krippendorff 2011,
    "Computing Krippendorff's Alpha-Reliability"), with a percentile bootstrap over items (Hayes & Krippendorff 2007).

    None unless some item has two ratings and not all ratings are the same, without which alpha is not defined.

    ratings: a row for each judge, a column for each item; NaN where there is none. metric: `interval` counts a tie
    against a win as a quarter of a win against a loss; `nominal` counts all differences alike.
    """
    values = np.asarray(ratings, float)
    levels = np.unique(values[~np.isnan(values)])
    counts = np.stack([(values == level).sum(axis=0) for level in levels], axis=1) if levels.size else np.empty((0, 0))
    counts = counts[counts.sum(axis=1) >= 2].astype(float) if levels.size else counts
    if not len(counts):
        return None
    differences = (levels[:, None] - levels[None, :]) ** 2
    if metric == "nominal":
        differences = (differences > 0).astype(float)
    # items that were rated alike are drawn together: a few patterns, however many items there are
    patterns, times = np.unique(counts, axis=0, return_counts=True)
    num_items = len(counts)
    alpha = _alpha(patterns, times[None, :].astype(float), differences)[0]
    if np.isnan(alpha):
        return None
    drawn = np.random.default_rng(seed).multinomial(num_items, times / num_items, _RESAMPLES)
    resampled = _alpha(patterns, drawn.astype(float), differences)
    resampled = np.where(np.isnan(resampled), 1.0, resampled)  # a sample in which nobody differs
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Agreement(float(alpha), float(low), float(high), num_items)


def _alpha(
    counts: NDArray[np.float64], weights: NDArray[np.float64], differences: NDArray[np.float64]
) -> NDArray[np.float64]:
    """1 - observed / expected disagreement for each row of `weights`, which says how often each pattern counts."""
    per_item = np.einsum("ic,cd,id->i", counts, differences, counts) / (counts.sum(axis=1) - 1)
    totals = weights @ counts
    num = totals.sum(axis=1)
    observed = weights @ per_item / num
    expected = np.einsum("wc,cd,wd->w", totals, differences, totals) / (num * (num - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def cohen_kappa(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Cohen's kappa (1960) of two judges' outcomes on the same items; None where it is not defined."""
    one, other = np.asarray(first, float), np.asarray(second, float)
    if one.size == 0 or one.shape != other.shape:
        return None
    agree = float((one == other).mean())
    levels = np.unique(np.concatenate([one, other]))
    chance = float(sum((one == level).mean() * (other == level).mean() for level in levels))
    return None if chance == 1 else (agree - chance) / (1 - chance)
