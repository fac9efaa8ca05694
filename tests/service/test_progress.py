from datetime import UTC, datetime, timedelta

from service.jobs.progress import advance, eta_s
from service.spec import Stage
from service.spec.reports import ProgressReport

START = datetime(2026, 1, 1, tzinfo=UTC)


def after(*reports: tuple[int, int]) -> dict[str, object]:
    """The train stage's entry after (seconds since the start, steps done) of 100 steps."""
    progress: dict[str, dict[str, object]] = {}
    for seconds, done in reports:
        report = ProgressReport(stage=Stage.TRAIN, done=done, total=100, unit="steps")
        progress = advance(progress, report, START + timedelta(seconds=seconds))
    return progress["train"]


def test_there_is_no_eta_before_anything_advanced() -> None:
    assert eta_s(after((0, 0))) is None
    assert eta_s(after((0, 0), (5, 0))) is None


def test_the_eta_is_what_is_left_at_the_rate_so_far() -> None:
    assert eta_s(after((0, 0), (10, 20))) == 40


def test_an_attempt_that_resumes_counts_only_its_own_steps() -> None:
    assert eta_s(after((0, 60), (10, 70))) == 30


def test_steps_that_are_repeated_after_a_lost_worker_begin_a_new_rate() -> None:
    entry = after((0, 0), (10, 50), (60, 40), (70, 50))
    assert eta_s(entry) == 50
    assert entry["started_at"] == START.isoformat()


def test_a_stage_that_is_through_has_nothing_left() -> None:
    assert eta_s(after((0, 100))) == 0
