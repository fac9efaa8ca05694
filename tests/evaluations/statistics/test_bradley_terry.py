import math

import numpy as np
import pytest
from scipy.optimize import minimize

from service.evaluations.statistics import bradley_terry

STRENGTHS = np.array([0.6, 0.0, -0.6])
TIE = 0.7
MODELS = ["good", "fair", "poor"]


def _drawn(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs = np.array([(0, 1), (0, 2), (1, 2)])[rng.integers(0, 3, num)]
    gap = (STRENGTHS[pairs[:, 0]] - STRENGTHS[pairs[:, 1]]) / 2
    odds = np.stack([np.exp(gap), np.full(num, TIE), np.exp(-gap)], axis=1)
    share = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
    drawn = rng.random(num)
    return pairs[:, 0], pairs[:, 1], np.where(drawn < share[:, 0], 1.0, np.where(drawn < share[:, 1], 0.5, 0.0))


def test_it_is_the_maximum_of_davidsons_likelihood() -> None:
    first, second, outcomes = _drawn(np.random.default_rng(0), 6000)

    def loss(theta: np.ndarray) -> float:
        strength = np.append(theta[:2], -theta[:2].sum())
        gap = (strength[first] - strength[second]) / 2
        total = np.log(np.exp(gap) + np.exp(theta[2]) + np.exp(-gap))
        return float(-np.sum(np.where(outcomes == 1, gap, np.where(outcomes == 0, -gap, theta[2])) - total))

    expected = minimize(loss, np.zeros(3)).x
    found = bradley_terry(MODELS, first, second, outcomes, range(6000))
    assert found is not None
    assert [one.model for one in found] == MODELS
    scale = 400 / math.log(10)
    assert [one.rating - 1000 for one in found[:2]] == pytest.approx(list(expected[:2] * scale), abs=0.5)
    assert sum(one.rating for one in found) == pytest.approx(3000)
    assert [one.rank for one in found] == [1, 2, 3]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered, runs = np.zeros(3), 300
    for _ in range(runs):
        first, second, outcomes = _drawn(rng, 300)
        found = bradley_terry(MODELS, first, second, outcomes, range(300))
        assert found is not None
        by_model = {one.model: one for one in found}
        truths = 1000 + STRENGTHS * 400 / math.log(10)
        covered += [by_model[m].low <= t <= by_model[m].high for m, t in zip(MODELS, truths, strict=True)]
    assert (covered / runs >= 0.91).all()
    assert (covered / runs <= 0.985).all()


@pytest.mark.parametrize("prompts", [10, 30])
@pytest.mark.parametrize("repeats", [1, 2])  # as a judge's two orders that agree
def test_intervals_cover_the_truth_where_models_win_nearly_always(prompts: int, repeats: int) -> None:
    rng = np.random.default_rng(3)
    strengths = np.array([2.5, 0.0, -2.5])
    first, second = np.tile([0, 0, 1], prompts), np.tile([1, 2, 2], prompts)
    chances = 1 / (1 + np.exp(-(strengths[first] - strengths[second])))
    covered, runs = np.zeros(3), 200
    for _ in range(runs):
        outcomes = (rng.random(3 * prompts) < chances).astype(float)
        clusters = np.repeat(np.arange(prompts), 3)
        found = bradley_terry(MODELS, *(np.repeat(one, repeats) for one in (first, second, outcomes, clusters)))
        assert found is not None
        by_model = {one.model: one for one in found}
        truths = 1000 + strengths * 400 / math.log(10)
        covered += [by_model[m].low <= t <= by_model[m].high for m, t in zip(MODELS, truths, strict=True)]
    assert (covered / runs >= 0.92).all(), covered / runs


def test_models_that_were_never_compared_have_no_ranking() -> None:
    first, second, outcomes = [0, 2] * 10, [1, 3] * 10, [1.0, 0.0] * 10
    assert bradley_terry(["a", "b", "c", "d"], first, second, outcomes, range(20)) is None


def test_many_votes_on_few_prompts_make_no_ranking() -> None:
    first, second, outcomes = _drawn(np.random.default_rng(2), 180)
    assert bradley_terry(MODELS, first, second, outcomes, np.repeat(range(9), 20)) is None
    assert bradley_terry(MODELS, first, second, outcomes, np.repeat(range(10), 18)) is not None
    assert bradley_terry(MODELS, [], [], [], []) is None


def test_a_model_that_always_wins_has_a_finite_rating_and_equals_share_a_rank() -> None:
    first, second = [0] * 20 + [1] * 20, [1] * 10 + [2] * 10 + [2] * 20
    outcomes = [1.0] * 20 + [1.0, 0.0] * 10
    found = bradley_terry(["a", "b", "c"], first, second, outcomes, range(40))
    assert found is not None
    assert np.isfinite(found[0].rating)
    assert [one.rank for one in found] == [1, 2, 2]
