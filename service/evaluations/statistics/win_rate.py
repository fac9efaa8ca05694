"""Win rate with a confidence interval that holds with ties, with few votes, and with several votes on one prompt."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.evaluations.statistics.quantiles import t_quantile


@dataclass(frozen=True)
class Interval:
    """num: outcomes; num_clusters: prompts they are about."""

    estimate: float
    low: float
    high: float
    num: int
    num_clusters: int


def win_rate(outcomes: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Interval | None:
    """The mean outcome, ties as half a win, and its confidence interval; None without outcomes.

    The interval is that of Bonett & Price (2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data") for (1 + wins - losses) / 2: one win and one loss are added before the Wald
    interval is computed, so that it does not shrink to nothing when all agree. Outcomes are shares of a win, not
    Bernoulli trials, so a Wilson interval, whose variance is p (1 - p), would be too wide with many ties. The variance
    is that of the prompts' sums (Liang & Zeger 1986), since votes on one prompt resemble each other, with Student's t
    for the number of prompts; what is added are two prompts with as many votes as the others have on average, since
    two votes among many would do little where all agree. The estimate is the plain mean.
    """
    y = np.asarray(outcomes, float)
    if not y.size:
        return None
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(cluster, y), np.bincount(cluster)
    votes = y.size / len(counts)  # on a prompt
    sums, counts = np.append(sums, (votes, 0.0)), np.append(counts, (votes, votes))
    num = counts.sum()
    centre = sums.sum() / num
    num_clusters = len(counts)
    variance = num_clusters / (num_clusters - 1) * np.sum((sums - counts * centre) ** 2) / num**2
    half = t_quantile((1 + confidence) / 2, max(num_clusters - 1, 3)) * math.sqrt(variance)
    return Interval(
        estimate=float(y.mean()),
        low=max(0.0, float(centre - half)),
        high=min(1.0, float(centre + half)),
        num=int(y.size),
        num_clusters=num_clusters - 2,
    )
