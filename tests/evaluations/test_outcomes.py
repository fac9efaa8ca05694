"""What of verdicts and votes is counted, and in which order."""

from datetime import datetime, timedelta

import numpy as np

from service.clock import utc_now
from service.db.evaluation_tables import EvaluationVote
from service.evaluations.outcomes import Verdict, drawn, of_verdicts, on_whole_prompts
from service.evaluations.statistics import sequential

PROMPTS = 200


def verdicts(wins: int, judged: list[int]) -> list[Verdict]:
    """Of a file that is sorted: the model wins on its first `wins` prompts."""
    return [Verdict(0, at, 1, 0, first, float(at < wins)) for at in judged for first in (True, False)]


def test_what_a_file_is_sorted_by_does_not_decide() -> None:
    for number in range(20):
        order = drawn(f"eval-{number}", PROMPTS)
        assert sorted(order) == list(range(PROMPTS))
        assert order == drawn(f"eval-{number}", PROMPTS)
        found = of_verdicts(verdicts(30, list(range(PROMPTS))), "judge", order, complete=True)
        assert np.mean(found.sequence[1, 0]) == 30 / PROMPTS
        assert sequential(found.sequence[1, 0]).decision == "second"


def test_until_all_is_judged_the_sequence_ends_at_the_first_prompt_that_is_not() -> None:
    order = drawn("eval", PROMPTS)
    judged = [*order[:40], *order[41:60]]
    found = of_verdicts(verdicts(100, judged), "judge", order, complete=False)
    assert list(found.sequence[1, 0]) == [float(at < 100) for at in order[:40]]
    assert len(found.outcomes) == len(judged)


def vote(voter: str, position: int, model: int, baseline: int, cast_at: datetime | None) -> EvaluationVote:
    return EvaluationVote(
        voter=voter, position=position, model=model, baseline=baseline, first_voted_at=cast_at, voted_at=cast_at
    )


def test_a_prompt_counts_when_somebody_has_judged_all_of_its_pairs() -> None:
    now = utc_now()
    whole = [vote("ann", 0, *pair, now) for pair in ((1, 0), (2, 0), (2, 1))]
    whole[0].voted_at = None  # taken back since
    part = [vote("ann", 1, 1, 0, now), vote("ann", 1, 2, 0, now + timedelta(1)), vote("ann", 1, 2, 1, None)]
    others = [vote("bob", 1, 2, 1, now)]
    assert on_whole_prompts([*part, *whole, *others], 3) == whole
    assert on_whole_prompts(others, 1) == others
