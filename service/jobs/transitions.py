"""The one way a job changes its state."""

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.tables import Job
from service.errors import InvalidState
from service.jobs.repository import append_event
from service.jobs.states import TRANSITIONS, JobState
from service.spec.reports import Failure
from service.telemetry import observe


async def transition(
    session: AsyncSession,
    job: Job,
    to: JobState,
    *,
    reason: str,
    data: dict[str, Any] | None = None,
    error: Failure | None = None,
    not_before: datetime | None = None,
) -> None:
    """Move `job` from the state it was read in to `to`, and append the event `job.<state>` with `reason`.

    not_before: of a job that is queued, when its next attempt may begin.

    Raises InvalidState if the table of transitions does not allow it, or if another transaction moved the job first.
    """
    before = job.state
    if to not in TRANSITIONS[before]:
        raise InvalidState(f"The job is {before}; it cannot become {to}.", state=before)

    now = utc_now()
    values: dict[str, Any] = {"state": to, "not_before": not_before}
    if to is JobState.QUEUED:  # the next attempt starts over, at least in what it can say about itself
        values |= {"stage": None, "progress": {}, "error": None, "finished_at": None}
        values |= {"pause_requested_at": None, "cancel_requested_at": None, "queued_at": now}
    waited_s = None
    if to is JobState.RUNNING and job.started_at is None:
        values["started_at"] = now
        waited_s = (now - job.created_at).total_seconds()
    if to is JobState.PAUSING or (to is JobState.PAUSED and job.pause_requested_at is None):
        values["pause_requested_at"] = now
    if to is JobState.CANCELLING or (to is JobState.CANCELLED and job.cancel_requested_at is None):
        values["cancel_requested_at"] = now
    if to.terminal:
        values["finished_at"] = now
    if error is not None:
        values["error"] = error.model_dump(mode="json")

    if not await guarded_update(session, job, values, Job.state == before):
        raise InvalidState(f"The job is no longer {before}: something else moved it first.")

    data = (data or {}) | ({"failure": values["error"]} if error is not None else {})
    await append_event(session, job, f"job.{to}", reason, data=data)
    observe.transition(session, job, before, reason, waited_s)
