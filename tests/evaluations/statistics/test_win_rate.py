import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from service.evaluations.statistics import win_rate
from service.evaluations.statistics.quantiles import t_quantile
from tests.evaluations.statistics.voters import votes


@pytest.mark.parametrize("df", [1, 2, 3, 5, 10, 30, 1000])
@pytest.mark.parametrize("probability", [0.95, 0.975, 0.995])
def test_quantiles_are_students(df: int, probability: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=0.03 if df < 6 else 0.002)


def test_ties_count_as_half() -> None:
    found = win_rate([1, 1, 0.5, 0], [1, 2, 3, 4])
    assert found is not None
    assert (found.estimate, found.num, found.num_clusters) == (0.625, 4, 4)


def test_nothing_is_said_without_votes() -> None:
    assert win_rate([], []) is None


def test_without_ties_and_with_many_votes_it_is_the_interval_of_a_proportion() -> None:
    found = win_rate([1.0] * 1300 + [0.0] * 700, range(2000))
    low, high = proportion_confint(1300, 2000, method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0005)


def test_unanimous_votes_leave_doubt() -> None:
    found = win_rate([1.0] * 20, range(20))
    assert found is not None
    assert found.estimate == 1
    assert 0.7 < found.low < 0.95


def test_many_votes_on_one_prompt_are_less_than_as_many_prompts() -> None:
    outcomes = [1.0] * 50 + [0.0] * 50
    apart = win_rate(outcomes, range(100))
    together = win_rate(outcomes, np.repeat(range(10), 10))
    assert apart is not None
    assert together is not None
    assert together.high - together.low > 2 * (apart.high - apart.low)


@pytest.mark.parametrize(
    ("mean", "ties", "spread", "num_prompts", "num_votes"),
    [
        (0.5, 0.0, 0.0, 20, 1),
        (0.5, 0.4, 0.0, 100, 1),
        (0.75, 0.1, 0.0, 50, 1),
        (0.92, 0.05, 0.0, 40, 1),
        (0.6, 0.2, 0.25, 60, 4),  # voters agree on which prompts the model does well
    ],
)
def test_intervals_cover_the_truth_as_often_as_they_say(
    mean: float, ties: float, spread: float, num_prompts: int, num_votes: int
) -> None:
    rng = np.random.default_rng(1)
    prompts = np.repeat(np.arange(num_prompts), num_votes)
    runs = 1500
    covered = 0
    for outcomes in votes(rng, (runs, num_prompts, num_votes), mean, ties, spread):
        found = win_rate(outcomes.ravel(), prompts)
        assert found is not None
        covered += found.low <= mean <= found.high
    assert 0.935 <= covered / runs <= 0.985  # 95% with 3 standard errors of the simulation, and some on the safe side


@pytest.mark.parametrize(("num_prompts", "num_votes"), [(1, 1), (1, 20), (2, 20), (3, 20), (5, 8), (10, 20)])
def test_on_few_prompts_voters_who_agree_are_no_more_than_one_vote_a_prompt(num_prompts: int, num_votes: int) -> None:
    rng = np.random.default_rng(2)
    prompts = np.repeat(np.arange(num_prompts), num_votes)
    runs = 600
    covered = 0
    for outcomes in rng.integers(0, 2, (runs, num_prompts)):
        found = win_rate(np.repeat(outcomes, num_votes), prompts)
        assert found is not None
        covered += found.low <= 0.5 <= found.high
    assert covered / runs >= 0.93


def test_a_few_votes_more_on_some_prompts_are_no_new_prompts() -> None:
    found = win_rate([1.0] * 30, np.repeat(np.arange(4), [20, 5, 3, 2]))
    assert found is not None
    assert found.low < 0.6
