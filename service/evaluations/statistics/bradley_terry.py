"""A ranking of more than two models from comparisons of two at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.evaluations.statistics.methods import MIN_CLUSTERS

_SCALE = 400 / math.log(10)  # Elo's: 400 points are odds of ten to one
_RIDGE = 0.05  # of a strength's square: a model that has won every comparison still has a finite strength
_STEPS, _TOLERANCE = 200, 1e-9


@dataclass(frozen=True)
class Rating:
    """rating: on Elo's scale, the models' mean at 1000. rank: 1 and the number of models that are better beyond the
    intervals of the differences. num: comparisons that the model took part in."""

    model: str
    rating: float
    low: float
    high: float
    rank: int
    num: int


def bradley_terry(
    models: Sequence[str],
    first: ArrayLike,
    second: ArrayLike,
    outcomes: ArrayLike,
    clusters: ArrayLike,
    confidence: float = 0.95,
) -> list[Rating] | None:
    """Strengths of `models`, best first; None if the comparisons do not link all of them, or are of fewer than
    MIN_CLUSTERS prompts, of which the robust covariance would be next to nothing.

    The model is Davidson's (1970, "On extending the Bradley-Terry model to accommodate ties"): a tie is likelier the
    closer two models are. Intervals are Wald's, from the larger of two variances: that of the robust ("sandwich")
    covariance as Chiang et al. (2024, arXiv 2403.04132) use it, clustered by prompt, which vanishes where one model
    wins nearly always; and the likelihood's where each pair of answers counts once. A light ridge penalty keeps
    strengths finite.

    first, second: positions in `models`. outcomes: 1, 0 or 0.5, as everywhere.
    """
    one, other, y = np.asarray(first, int), np.asarray(second, int), np.asarray(outcomes, float)
    num_models = len(models)
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    if int(cluster.max(initial=-1)) + 1 < MIN_CLUSTERS or not _linked(num_models, one, other):
        return None
    x = np.zeros((len(y), num_models))
    x[np.arange(len(y)), one] += 1
    x[np.arange(len(y)), other] -= 1
    strengths, covariances = _fit(x, y, cluster)

    def deviation(contrast: NDArray[np.float64]) -> float:
        return math.sqrt(max(0.0, *(float(contrast @ covariance @ contrast) for covariance in covariances)))

    each = np.eye(num_models)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    ratings = []
    for place, model in enumerate(models):
        better = 0
        for rival in range(num_models):
            gap = strengths[rival] - strengths[place]
            better += bool(gap > z * deviation(each[rival] - each[place]))
        half = z * deviation(each[place])
        low, middle, high = (1000 + _SCALE * (float(strengths[place]) + shift) for shift in (-half, 0.0, half))
        num = int(((one == place) | (other == place)).sum())
        ratings.append(Rating(model, middle, low, high, 1 + better, num))
    return sorted(ratings, key=lambda rating: -rating.rating)


def _fit(
    x: NDArray[np.float64], y: NDArray[np.float64], cluster: NDArray[np.intp]
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Strengths with mean 0, and their covariance: the robust one, and the likelihood's where each pair of answers
    counts once. By Newton's method on strengths and the tie parameter's logarithm.

    With gap d and tie parameter v the odds of win : tie : loss are exp(d/2) : v : exp(-d/2).
    """
    num_models = x.shape[1]
    theta = np.append(np.zeros(num_models), 0.0)
    penalty = _RIDGE * np.eye(num_models + 1)
    penalty[-1, -1] = 1e-3  # without a tie the parameter would go to minus infinity
    tie = y == 0.5
    for _ in range(_STEPS):
        gradients, hessian = _derivatives(x, y, tie, theta)
        step = np.linalg.solve(hessian + penalty, gradients.sum(axis=0) - penalty @ theta)
        theta = theta + step * min(1.0, 2.0 / float(np.abs(step).max(initial=1e-300)))
        if np.abs(step).max() < _TOLERANCE:
            break
    gradients, hessian = _derivatives(x, y, tie, theta)
    _, answers, repeats = np.unique(
        np.column_stack([cluster, np.abs(x)]), axis=0, return_inverse=True, return_counts=True
    )
    _, hessian_once = _derivatives(x, y, tie, theta, 1 / repeats[answers.ravel()])
    scores = np.zeros((int(cluster.max()) + 1, num_models + 1))
    np.add.at(scores, cluster, gradients)
    bread = np.linalg.inv(hessian + penalty)
    covariance = bread @ (scores.T @ scores) @ bread * len(scores) / (len(scores) - 1)
    centre = np.eye(num_models) - 1 / num_models
    robust, likely = (centre @ one[:-1, :-1] @ centre for one in (covariance, np.linalg.inv(hessian_once + penalty)))
    return theta[:-1] - theta[:-1].mean(), (robust, likely)


def _derivatives(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    tie: NDArray[np.bool_],
    theta: NDArray[np.float64],
    weights: NDArray[np.float64] | float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each comparison's gradient of the log-likelihood, and the negative Hessian of their weighted sum."""
    half_gap, log_tie = (x @ theta[:-1]) / 2, theta[-1]
    logits = np.stack([half_gap, np.full_like(half_gap, log_tie), -half_gap], axis=1)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    win, tied, loss = (odds / odds.sum(axis=1, keepdims=True)).T
    mean = win - loss
    gradients = np.concatenate([x * ((y - 0.5) * 2 - mean)[:, None] / 2, (tie - tied)[:, None]], axis=1)
    hessian = np.zeros((len(theta), len(theta)))
    hessian[:-1, :-1] = (x * (weights * (win + loss - mean**2) / 4)[:, None]).T @ x
    hessian[:-1, -1] = hessian[-1, :-1] = x.T @ (-weights * mean * tied / 2)
    hessian[-1, -1] = float(np.sum(weights * tied * (1 - tied)))
    return gradients, hessian


def _linked(num_models: int, first: NDArray[np.int_], second: NDArray[np.int_]) -> bool:
    reached = {0}
    while True:
        more = {int(b) for a, b in zip(first, second, strict=True) if int(a) in reached}
        more |= {int(a) for a, b in zip(first, second, strict=True) if int(b) in reached}
        if more <= reached:
            return len(reached) == num_models
        reached |= more
