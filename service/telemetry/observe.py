"""What happens to jobs, told to logs and metrics when its transaction is committed."""

import logging
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.tables import Attempt, Job
from service.jobs.states import JobState
from service.spec.reports import EventReport, Failure, Fault, MetricsReport, Report
from service.telemetry import metrics, traces
from service.telemetry.after_commit import after_commit

log = logging.getLogger(__name__)

# Alerts count increases of these. A series that begins with its first event shows no increase by it.
for _state in JobState:
    metrics.TRANSITIONS.labels(_state)
for _fault in Fault:
    metrics.ATTEMPTS_FAILED.labels(_fault)

# Attempts name their events themselves, so what they may make a label of is a list.
EVENT_TYPES = frozenset(
    {
        "stage.started", "stage.completed", "model.fetched", "data.fetched", "data.prepared", "reference.planned",
        "reference.started", "reference.scored", "train.started", "train.moved", "checkpoint.saved",
        "checkpoint.unreadable", "health.alarm", "pairs.measured", "pairs.failed", "model.published",
    }
) | {f"job.{state}" for state in JobState}  # fmt: skip


def transition(session: AsyncSession, job: Job, before: JobState, reason: str, waited_s: float | None) -> None:
    """A job changed its state. waited_s: from its submission to now, if its first attempt has just begun."""
    now, to = utc_now(), job.state

    def tell() -> None:
        metrics.TRANSITIONS.labels(to).inc()
        if waited_s is not None:
            metrics.QUEUE_WAIT_SECONDS.observe(waited_s)
            traces.part_span(job.id, "queued", waited_s, now)
        if to.terminal:
            traces.job_span(job.id, to, job.created_at, now)
        fields = {"job_id": job.id, "project_id": job.project_id, "from_state": before, "to_state": to}
        log.info("%s -> %s: %s", before, to, reason, extra=fields)

    after_commit(session, tell)


def attempt_failed(session: AsyncSession, failure: Failure) -> None:
    after_commit(session, lambda: metrics.ATTEMPTS_FAILED.labels(failure.fault).inc())


def events(session: AsyncSession, types: Sequence[str]) -> None:
    """Events were appended to a job's log."""

    def tell() -> None:
        for type in types:
            metrics.EVENTS.labels(type if type in EVENT_TYPES else "other").inc()

    after_commit(session, tell)


def reports(session: AsyncSession, attempt: Attempt, new: Sequence[Report], waited_s: float) -> None:
    """An attempt's reports were taken for the first time. waited_s: of the oldest, in the attempt."""
    now = utc_now()

    def tell() -> None:
        metrics.REPORT_LAG_SECONDS.observe(waited_s)
        for report in new:
            if isinstance(report, EventReport):
                _event(attempt, report, now)
            elif isinstance(report, MetricsReport):
                metrics.POLICY_WAIT_SECONDS.inc(_amount(report.values.get("policy_wait_s")))
                if report.split == "train":
                    metrics.TRAIN_STEPS.inc()
                    metrics.TRAIN_TOKENS.inc(_amount(report.values.get("tokens")))

    if new:
        after_commit(session, tell)


def _event(attempt: Attempt, report: EventReport, now: datetime) -> None:
    if report.type == "stage.completed" and report.stage is not None:
        seconds = _amount(report.data.get("seconds"))
        metrics.STAGE_SECONDS.labels(report.stage).observe(seconds)
        traces.part_span(attempt.job_id, report.stage, seconds, now, attempt.number)
    elif report.type == "reference.planned":
        metrics.REFERENCE_PAIRS.labels("hit").inc(_amount(report.data.get("hits")))
        metrics.REFERENCE_PAIRS.labels("miss").inc(_amount(report.data.get("to_score")))


def _amount(value: Any) -> float:
    """What an attempt says, if a counter can take it."""
    is_amount = isinstance(value, int | float) and math.isfinite(value) and value >= 0
    return float(value) if is_amount else 0.0
