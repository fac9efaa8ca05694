"""The driver of one attempt: `python -m workers.run`, started on the cluster by Ray Job Submission.

Reads PLUMBLINE_API_URL, PLUMBLINE_ATTEMPT_ID and PLUMBLINE_ATTEMPT_TOKEN. The attempt runs in a thread; the main
thread waits for its end or for word to stop, says how it ended, and leaves. Ray then ends every actor of the job. A
pause is passed on to training, which ends by itself; before that there is nothing to wait for.
"""

import logging
import os
import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from service.spec.reports import NODE_DRAINED, Failure, Fault, OutcomeReport
from workers.errors import AttemptError, Paused
from workers.logs import Lines, configure
from workers.reporting import Reporter

if TYPE_CHECKING:
    from workers.attempt import Attempt

_TAIL_LINES = 60


class LogTail(logging.Handler):
    """Keeps the last lines of the log, for the report of a failure."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.extend(self.format(record).splitlines())

    def lines(self) -> list[str]:
        return list(self._lines)


def main() -> int:
    attempt_id, token = os.environ["PLUMBLINE_ATTEMPT_ID"], os.environ["PLUMBLINE_ATTEMPT_TOKEN"]
    configure(attempt_id, token)
    tail = LogTail()
    tail.setFormatter(Lines("%(levelname)s %(name)s: %(message)s", token))
    logging.getLogger().addHandler(tail)

    changed = threading.Event()
    reporter = Reporter(
        os.environ["PLUMBLINE_API_URL"],
        attempt_id,
        token,
        on_stop=changed.set,
    )
    brief = reporter.brief()
    with reporter:
        from workers.attempt import Attempt  # takes seconds (torch, transformers); the heartbeat is on by now

        drained = threading.Event()

        def leave() -> None:
            drained.set()
            changed.set()

        attempt = Attempt(brief, reporter, leave)
        work = ThreadPoolExecutor(1, thread_name_prefix="attempt").submit(attempt.run)
        work.add_done_callback(lambda _: changed.set())
        _wait_for_end(work, attempt, reporter, changed, drained)
        if reporter.refused.is_set():
            return 1
        outcome = _outcome(work, attempt, reporter, tail)
        reporter.outcome(outcome)
    return 0 if outcome.result == "succeeded" else 1


def _wait_for_end(
    work: Future[None], attempt: "Attempt", reporter: Reporter, changed: threading.Event, drained: threading.Event
) -> None:
    """Until the attempt has ended, or is to be left as it is. changed: set when there is anything new. drained: set if
    this node is to go; training is then paused as by a client."""
    while not (work.done() or reporter.refused.is_set() or reporter.cancelled.is_set()):
        if (reporter.paused.is_set() or drained.is_set()) and not attempt.pause():
            return
        changed.wait()
        changed.clear()


def _outcome(work: Future[None], attempt: "Attempt", reporter: Reporter, tail: LogTail) -> OutcomeReport:
    error = work.exception() if work.done() else None
    if work.done() and error is None:
        return OutcomeReport(result="succeeded")
    if error is None and reporter.cancelled.is_set():
        return OutcomeReport(result="cancelled")
    if error is None or isinstance(error, Paused):
        return OutcomeReport(result="paused") if reporter.paused.is_set() else _drained(attempt)
    logging.getLogger(__name__).error("the attempt failed", exc_info=error)
    if isinstance(error, AttemptError):
        return OutcomeReport(result="failed", failure=error.failure(attempt.stage, tail.lines()))
    failure = Failure(
        code="internal_error",
        message=f"{type(error).__name__}: {error}"[:2000],
        fault=Fault.SYSTEM,
        stage=attempt.stage,
        log_tail=tail.lines(),
    )
    return OutcomeReport(result="failed", failure=failure)


def _drained(attempt: "Attempt") -> OutcomeReport:
    message = "The node of the attempt's driver is being drained: the next attempt takes up what this one has left."
    return OutcomeReport(
        result="failed", failure=Failure(code=NODE_DRAINED, message=message, fault=Fault.SYSTEM, stage=attempt.stage)
    )


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # the attempt's thread may still wait for actors that end with this process
