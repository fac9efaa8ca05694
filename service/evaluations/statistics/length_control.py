"""Win rate as it would be if both models' answers were equally long."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.evaluations.statistics.methods import MIN_CLUSTERS

_RIDGE = 0.05  # of a coefficient's square: what separates perfectly still has a finite answer
_STEPS, _TOLERANCE = 100, 1e-10


@dataclass(frozen=True)
class LengthControlled:
    """length_effect: log-odds that an answer gains by being one `tanh` unit longer; 0 if length does not matter."""

    estimate: float
    low: float
    high: float
    length_effect: float
    mean_length_difference: float
    num: int


def length_controlled(
    outcomes: ArrayLike, length_differences: ArrayLike, clusters: ArrayLike, confidence: float = 0.95
) -> LengthControlled | None:
    """Length-controlled win rate (Dubois, Galambosi, Liang, Hashimoto 2024, arXiv 2404.04475): a logistic regression
    of the outcome on tanh(length difference / its standard deviation), read off at difference 0. None for fewer than
    MIN_CLUSTERS prompts, from which no robust covariance can be had, and where one model's answers are the longer ones
    on every prompt: what equally long ones would bring is then nowhere in the data.

    What differs from AlpacaEval 2: there is no term for an instruction's difficulty, which they estimate from many
    models' results on a fixed set of prompts and which two models do not determine; ties count as half; coefficients
    have a light ridge penalty in place of a cross-validated one; and there is an interval, from the larger of two
    variances: the one that is robust to several outcomes on one prompt (Liang & Zeger 1986), which vanishes where one
    model wins nearly always, and the likelihood's where each prompt counts once.

    length_differences: first model's answer minus second's, in any unit.
    """
    y, lengths = np.asarray(outcomes, float), np.asarray(length_differences, float)
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    num_clusters = int(cluster.max(initial=-1)) + 1
    if num_clusters < MIN_CLUSTERS or lengths.min() > 0 or lengths.max() < 0:
        return None
    spread = lengths.std()
    length = np.tanh(lengths / spread) if spread else np.zeros_like(lengths)
    x = np.stack([np.ones_like(length), length], axis=1)
    beta = np.zeros(2)
    for _ in range(_STEPS):
        p = _logistic(x @ beta)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (y - p) - _RIDGE * beta)
        beta = beta + step * min(1.0, 5.0 / float(np.abs(step).max(initial=1e-300)))
        if np.abs(step).max() < _TOLERANCE:
            break
    p = _logistic(x @ beta)
    information = p * (1 - p)
    bread = np.linalg.inv((x * information[:, None]).T @ x + _RIDGE * np.eye(2))
    once = np.linalg.inv((x * (information / np.bincount(cluster)[cluster])[:, None]).T @ x + _RIDGE * np.eye(2))
    scores = np.zeros((num_clusters, 2))
    np.add.at(scores, cluster, x * (y - p)[:, None])
    covariance = bread @ (scores.T @ scores) @ bread * num_clusters / (num_clusters - 1)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(max(float(covariance[0, 0]), float(once[0, 0])))
    return LengthControlled(
        estimate=float(_logistic(beta[0])),
        low=float(_logistic(beta[0] - half)),
        high=float(_logistic(beta[0] + half)),
        length_effect=float(beta[1]),
        mean_length_difference=float(lengths.mean()),
        num=int(y.size),
    )


def _logistic(value: ArrayLike) -> NDArray[np.float64]:
    probability: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(np.asarray(value, float), -500, 500)))
    return probability
