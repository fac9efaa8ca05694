import numpy as np
import pytest

from service.evaluations.statistics import position_bias


def test_a_judge_who_sees_the_answers_is_not_biased() -> None:
    rng = np.random.default_rng(0)
    better = rng.random(100) < 0.8  # of each pair, whether the first model's answer is
    first_wins = np.concatenate([better, ~better]).astype(float)
    found = position_bias(first_wins, np.tile(np.arange(100), 2))
    assert found is not None
    assert found.first_rate.estimate == 0.5
    assert not found.biased
    assert found.consistent is not None
    assert found.consistent.estimate == 1


def test_a_judge_who_always_takes_the_first_is() -> None:
    found = position_bias([1.0] * 60, np.tile(np.arange(30), 2))
    assert found is not None
    assert found.biased
    assert found.consistent is not None
    assert found.consistent.estimate == 0


def test_a_leaning_is_found_among_better_and_worse_answers() -> None:
    rng = np.random.default_rng(1)
    better = rng.random(400) < 0.7
    leaning = rng.random((2, 400)) < 0.3  # takes the first whatever the answers are
    first_wins = np.where(leaning, True, np.stack([better, ~better])).astype(float)
    found = position_bias(first_wins.ravel(), np.tile(np.arange(400), 2))
    assert found is not None
    assert found.biased
    assert found.first_rate.estimate == pytest.approx(0.65, abs=0.04)


def test_a_judge_without_a_leaning_is_called_biased_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(2)
    called, runs = 0, 600
    for _ in range(runs):
        better = rng.choice([1.0, 0.5, 0.0], 60)
        noise = rng.random((2, 60)) < 0.25  # a quarter of the verdicts are drawn by lot
        first_wins = np.where(noise, rng.integers(0, 2, (2, 60)), np.stack([better, 1 - better]))
        found = position_bias(first_wins.ravel(), np.tile(np.arange(60), 2))
        assert found is not None
        called += found.biased
    assert 0.02 <= called / runs <= 0.08
