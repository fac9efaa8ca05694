"""The small curve that a list of jobs draws."""

from itertools import pairwise

from service.jobs.loss_line import MAX_POINTS, extended


def test_a_long_job_keeps_few_points_spread_evenly_over_all_of_it() -> None:
    line = None
    for step in range(1, 10_001):
        line = extended(line, [(step, 1 / step)])
    assert line is not None
    steps = [step for step, _ in line["points"]]
    assert MAX_POINTS / 2 <= len(steps) <= MAX_POINTS
    assert steps[0] == 1
    assert steps[-1] > 9_000
    gaps = {after - before for before, after in pairwise(steps)}
    assert gaps == {line["stride"]}


def test_it_does_not_matter_how_steps_are_put_together_in_batches() -> None:
    pairs = [(step, float(step % 7)) for step in range(1, 400)]
    one_by_one = None
    for pair in pairs:
        one_by_one = extended(one_by_one, [pair])
    assert extended(None, pairs) == one_by_one


def test_steps_that_come_again_after_a_resume_replace_what_was_there() -> None:
    line = extended(None, [(1, 0.7), (2, 0.6), (3, 0.5)])
    assert extended(line, [(2, 0.4)]) == {"stride": 1, "points": [[1, 0.7], [2, 0.4]]}


def test_a_loss_that_is_no_number_leaves_the_line_as_it_is() -> None:
    line = extended(None, [(1, 0.7)])
    assert extended(line, [(2, None), (3, float("nan"))]) == line
    assert extended(None, [(1, float("inf"))]) is None
