import numpy as np
import pytest

from service.evaluations.statistics import cohen_kappa, krippendorff_alpha

_ = np.nan
# The worked example of Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]


def test_alpha_is_that_of_the_published_example() -> None:
    nominal, interval = krippendorff_alpha(EXAMPLE, "nominal"), krippendorff_alpha(EXAMPLE)
    assert nominal is not None
    assert interval is not None
    assert nominal.estimate == pytest.approx(0.743, abs=0.001)
    assert interval.estimate == pytest.approx(0.849, abs=0.001)
    assert nominal.low < nominal.estimate < nominal.high <= 1
    assert nominal.num_items == 11  # one item has a single rating


def test_judges_who_vote_by_chance_agree_by_chance() -> None:
    found = krippendorff_alpha(np.random.default_rng(0).choice([0.0, 0.5, 1.0], (3, 400)))
    assert found is not None
    assert found.low < 0 < found.high


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Two judges who see the truth, a coin, and are wrong one time in five: alpha is (1 - 2 * 0.2) ** 2."""
    rng = np.random.default_rng(1)
    covered, runs = 0, 200
    for _run in range(runs):
        truth = rng.integers(0, 2, 150)
        ratings = np.where(rng.random((2, 150)) < 0.2, 1 - truth, truth)
        found = krippendorff_alpha(ratings)
        assert found is not None
        covered += found.low <= 0.36 <= found.high
    assert 0.89 <= covered / runs <= 0.99


def test_what_cannot_be_compared_has_no_agreement() -> None:
    assert krippendorff_alpha([[1, _], [_, 0]]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([]) is None


def test_kappa_is_that_of_statsmodels() -> None:
    from statsmodels.stats.inter_rater import cohens_kappa, to_table

    rng = np.random.default_rng(2)
    first = rng.choice([0.0, 0.5, 1.0], 200)
    second = np.where(rng.random(200) < 0.6, first, rng.choice([0.0, 0.5, 1.0], 200))
    table, _bins = to_table(np.stack([first, second], axis=1))
    assert cohen_kappa(list(first), list(second)) == pytest.approx(cohens_kappa(table).kappa)
    assert cohen_kappa([1, 1], [1, 1]) is None
