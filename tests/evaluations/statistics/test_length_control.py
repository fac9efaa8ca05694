import numpy as np
import pytest
import statsmodels.api as sm

from service.evaluations.statistics import length_controlled


def _drawn(rng: np.random.Generator, num: int, quality: float, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of voters who like quality and length, of answers that differ in length by 1 on average."""
    lengths = rng.normal(1.0, 1.0, num)
    odds = quality + effect * np.tanh(lengths / lengths.std())
    return (rng.random(num) < 1 / (1 + np.exp(-odds))).astype(float), lengths


def test_it_is_the_logistic_regression_of_statsmodels() -> None:
    outcomes, lengths = _drawn(np.random.default_rng(0), 3000, 0.4, 1.0)
    x = sm.add_constant(np.tanh(lengths / lengths.std()))
    fit = sm.GLM(outcomes, x, family=sm.families.Binomial()).fit(cov_type="HC0")
    low, high = fit.conf_int()[0]
    found = length_controlled(outcomes, lengths, range(3000))
    assert found is not None
    assert found.estimate == pytest.approx(1 / (1 + np.exp(-fit.params[0])), abs=1e-3)
    assert found.length_effect == pytest.approx(fit.params[1], abs=2e-3)
    assert (found.low, found.high) == pytest.approx(tuple(1 / (1 + np.exp(-np.array([low, high])))), abs=1e-3)


def test_a_model_that_is_liked_for_its_length_alone_wins_half() -> None:
    outcomes, lengths = _drawn(np.random.default_rng(1), 4000, 0.0, 1.5)
    found = length_controlled(outcomes, lengths, range(4000))
    assert found is not None
    assert outcomes.mean() > 0.65
    assert found.low <= 0.5 <= found.high


def test_what_length_separates_perfectly_stays_finite() -> None:
    found = length_controlled([1.0] * 20 + [0.0] * 20, [5.0] * 20 + [-5.0] * 20, range(40))
    assert found is not None
    assert np.isfinite(found.length_effect)
    assert found.estimate == pytest.approx(0.5, abs=0.01)


def test_equal_lengths_give_the_plain_win_rate() -> None:
    found = length_controlled([1.0] * 30 + [0.5] * 10 + [0.0] * 20, [0.0] * 60, range(60))
    assert found is not None
    assert found.estimate == pytest.approx(35 / 60, abs=0.002)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    truth = 1 / (1 + np.exp(-0.5))
    runs, covered = 600, 0
    for _ in range(runs):
        found = length_controlled(*_drawn(rng, 200, 0.5, 0.8), range(200))
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / runs <= 0.985


@pytest.mark.parametrize(("rate", "prompts"), [(0.8, 10), (0.95, 10), (0.95, 40)])
@pytest.mark.parametrize("votes", [1, 5])  # that say the same of a prompt
def test_intervals_cover_the_truth_where_one_model_wins_nearly_always(rate: float, prompts: int, votes: int) -> None:
    rng = np.random.default_rng(4)
    runs, covered = 300, 0
    for _ in range(runs):
        outcomes = (rng.random(prompts) < rate).astype(float)
        lengths = rng.normal(50, 100, prompts)
        found = length_controlled(*(np.repeat(one, votes) for one in (outcomes, lengths, np.arange(prompts))))
        assert found is None or found.low < found.high
        covered += found is None or found.low <= rate <= found.high
    assert covered / runs >= 0.92


@pytest.mark.parametrize("sign", [1, -1])
def test_a_model_that_is_always_the_longer_one_has_no_win_rate_at_equal_length(sign: int) -> None:
    rng = np.random.default_rng(5)
    outcomes, lengths = rng.random(200) < 0.8, sign * rng.normal(500, 70, 200)
    assert length_controlled(outcomes, lengths, range(200)) is None
    lengths[0] = 0.0
    assert length_controlled(outcomes, lengths, range(200)) is not None


def test_many_votes_on_few_prompts_are_too_little() -> None:
    outcomes, lengths = _drawn(np.random.default_rng(3), 180, 0.5, 0.8)
    assert length_controlled(outcomes, lengths, np.repeat(range(9), 20)) is None
    assert length_controlled(outcomes, lengths, np.repeat(range(10), 18)) is not None
    assert length_controlled([], [], []) is None
