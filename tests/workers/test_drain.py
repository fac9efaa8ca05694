"""What a driver does whose node is drained. That training leaves such a node is tested end to end."""

import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from service.spec.reports import AttemptBrief, Fault
from tests.workers.training_runs import make_job
from workers.attempt import Attempt
from workers.errors import Paused
from workers.reporting import Reporter
from workers.run import LogTail, _outcome, _wait_for_end


@pytest.fixture
def reporter() -> Reporter:
    return Reporter("http://127.0.0.1:9", "a", "token", on_stop=lambda: None)


@pytest.fixture
def attempt(reporter: Reporter, tmp_path: Path) -> Attempt:
    brief = AttemptBrief(
        attempt_id="a",
        attempt_number=1,
        job_id="job-" + "1" * 21,
        spec=make_job(),
        storage=str(tmp_path),
        train_file=None,
        heartbeat_every_s=1,
    )
    return Attempt(brief, reporter, on_drain=lambda: None)


def test_a_driver_that_does_not_train_yet_leaves_at_once(attempt: Attempt, reporter: Reporter) -> None:
    work: Future[None] = Future()
    changed, drained = threading.Event(), threading.Event()
    drained.set()
    changed.set()
    _wait_for_end(work, attempt, reporter, changed, drained)
    outcome = _outcome(work, attempt, reporter, LogTail())
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.fault) == ("node_drained", Fault.SYSTEM)  # so that it is retried


def test_training_that_has_left_for_it_is_retried_and_one_that_a_client_paused_stays_paused(
    attempt: Attempt, reporter: Reporter
) -> None:
    work: Future[None] = Future()
    work.set_exception(Paused("after step 3"))
    left = _outcome(work, attempt, reporter, LogTail())
    assert left.failure is not None
    assert left.failure.code == "node_drained"
    reporter.paused.set()
    assert _outcome(work, attempt, reporter, LogTail()).result == "paused"


def test_a_client_who_cancels_meanwhile_is_heard(attempt: Attempt, reporter: Reporter) -> None:
    reporter.cancelled.set()
    assert _outcome(Future(), attempt, reporter, LogTail()).result == "cancelled"
