import math

import numpy as np
import pytest

from service.evaluations.statistics import capital, sequential
from tests.evaluations.statistics.voters import votes

ALPHA = 0.05


@pytest.mark.parametrize("ties", [0.0, 0.5])
def test_looking_after_every_vote_finds_no_winner_between_equals_more_often_than_promised(ties: float) -> None:
    """Optional stopping: each of 4000 evaluations is stopped at the first vote, of 400, at which it looks decided."""
    outcomes = votes(np.random.default_rng(3), (4000, 400), 0.5, ties)
    better, worse = capital(outcomes, 0.5)
    decided = (np.maximum(better, worse) >= math.log(2 / ALPHA)).any(axis=1)
    assert decided.mean() <= ALPHA


def test_a_test_for_one_look_would_be_wrong_far_more_often() -> None:
    """That the simulation above can fail: the usual z-test, looked at after every vote, finds a winner in most runs."""
    outcomes = votes(np.random.default_rng(3), (1000, 400), 0.5)
    num = np.arange(1, 401)
    z = (np.cumsum(outcomes, axis=1) - num / 2) / np.sqrt(num / 4)
    assert (np.abs(z[:, 10:]) > 1.96).any(axis=1).mean() > 0.25


def test_the_sequence_keeps_the_true_mean_at_all_times() -> None:
    """The capital that bets against the truth seldom grows, whatever the truth is."""
    for mean, ties in ((0.3, 0.2), (0.8, 0.1)):
        outcomes = votes(np.random.default_rng(4), (4000, 300), mean, ties)
        better, worse = capital(outcomes, mean)
        assert (np.maximum(better, worse) >= math.log(2 / ALPHA)).any(axis=1).mean() <= ALPHA


def test_a_clear_preference_is_found_with_few_votes() -> None:
    rng = np.random.default_rng(5)
    found = [sequential(outcomes) for outcomes in votes(rng, (40, 300), 0.75, 0.1)]
    assert all(one.decision == "first" for one in found)
    assert np.median([one.decided_at or 0 for one in found]) < 80
    assert all(one.low > 0.5 and one.low <= 0.75 <= one.high for one in found[:20])
    assert sequential(1 - votes(rng, (300,), 0.75)).decision == "second"


def test_a_decision_stays_when_later_votes_go_the_other_way() -> None:
    found = sequential([1.0] * 30 + [0.0] * 30)
    assert (found.decision, found.decided_at is not None) == ("first", True)
    assert found.p_bound < ALPHA


def test_the_p_bound_crosses_alpha_just_when_the_sequence_leaves_out_a_half() -> None:
    outcomes = votes(np.random.default_rng(6), (120,), 0.7)
    for num in range(1, 121, 7):
        found = sequential(outcomes[:num])
        assert (found.p_bound <= ALPHA) == (found.decision is not None)
        if found.decision is None:
            assert found.low <= 0.5 <= found.high


def test_without_votes_nothing_is_known() -> None:
    found = sequential([])
    assert (found.num, found.p_bound, found.decision, found.low, found.high) == (0, 1.0, None, 0.0, 1.0)
