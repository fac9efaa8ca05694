"""The mean of a metric with its interval."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from service.evaluations.statistics.quantiles import t_quantile


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float] | None:
    """Mean and Student's t interval; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = fmean(values)
    half = t_quantile((1 + confidence) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
