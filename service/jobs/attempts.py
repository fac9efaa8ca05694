"""How attempts begin and end, and what that means for their job."""

from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.tables import Attempt, Job
from service.deployments import service as deployments
from service.errors import InvalidState, SpecUnreadable
from service.jobs.gpu_hours import gpu_seconds
from service.jobs.log import LogRepository
from service.jobs.repository import ACTIVE_ATTEMPTS, AttemptRepository, JobRepository
from service.jobs.states import AttemptState, JobState
from service.jobs.transitions import transition
from service.settings import Settings
from service.spec.reports import NODE_DRAINED, Failure, Fault
from service.spec.secrets import redacted
from service.telemetry import observe


class Left(NamedTuple):
    """What becomes of an attempt that left on request, and of its job."""

    attempt: AttemptState
    job: JobState


LEAVING = {
    JobState.PAUSING: Left(AttemptState.PAUSED, JobState.PAUSED),
    JobState.CANCELLING: Left(AttemptState.CANCELLED, JobState.CANCELLED),
}


async def start_attempt(session: AsyncSession, job: Job) -> Attempt:
    """Lease the next attempt of a queued job. Commit before submitting it: the row is what a restart finds."""
    attempt = await AttemptRepository(session).create(job)
    await transition(
        session,
        job,
        JobState.STARTING,
        reason=f"Attempt {attempt.number} is being submitted to the cluster.",
        data={"attempt": attempt.number},
    )
    return attempt


async def note_first_word(session: AsyncSession, job: Job, attempt: Attempt) -> None:
    """The attempt's driver has spoken: it runs, and so does its job unless it is being cancelled."""
    await guarded_update(session, attempt, {"state": AttemptState.RUNNING}, Attempt.state == AttemptState.PENDING)
    if job.state is JobState.STARTING:
        await transition(
            session,
            job,
            JobState.RUNNING,
            reason=f"Attempt {attempt.number} has started on the cluster.",
            data={"attempt": attempt.number},
        )


async def succeed_attempt(session: AsyncSession, attempt: Attempt) -> None:
    """The attempt has published its model. Its job has succeeded, even if a cancel was under way."""
    job = await JobRepository(session).get(attempt.job_id, lock=True)
    await _end(session, job, attempt, AttemptState.SUCCEEDED)
    await transition(
        session, job, JobState.SUCCEEDED, reason="The model is published.", data={"attempt": attempt.number}
    )
    if job.spec.get("serve", True):
        await deployments.want(session, job)


async def fail_attempt(session: AsyncSession, attempt: Attempt, failure: Failure, settings: Settings) -> None:
    """End the attempt; its job is queued again after a failure on our side, later each time, while fewer than
    `settings.max_attempts` in a row have failed. One that has saved a checkpoint begins a new row; one whose node is
    drained counts as none, and its job is queued at once.

    A job that is being cancelled stays so until the cluster is seen to be clean, and so does one that is being paused,
    unless only the user can do something. Raises InvalidState if the attempt had already ended.
    """
    job = await JobRepository(session).get(attempt.job_id, lock=True)
    failure = Failure.model_validate(redacted(failure.model_dump(mode="json")))  # its log may say anything
    await _end(session, job, attempt, AttemptState.FAILED, failure)
    if failure.code != NODE_DRAINED:
        observe.attempt_failed(session, failure)
    if job.state is JobState.CANCELLING or (job.state is JobState.PAUSING and failure.fault is Fault.SYSTEM):
        return
    told: dict[str, Any] = {"attempt": attempt.number}
    if failure.code == NODE_DRAINED:
        reason = f"Attempt {attempt.number} left its node: {failure.message}"
        await transition(session, job, JobState.QUEUED, reason=reason, data=told)
        return
    if failure.fault is Fault.SYSTEM:
        got_on = await LogRepository(session).has_event(job.id, attempt.number, "checkpoint.saved")
        await guarded_update(session, job, {"num_failures": 1 if got_on else job.num_failures + 1})
    if failure.fault is Fault.SYSTEM and job.num_failures < settings.max_attempts:
        wait_s = backoff_s(job.num_failures, settings)
        not_before = utc_now() + timedelta(seconds=wait_s)
        await transition(
            session,
            job,
            JobState.QUEUED,
            reason=f"Attempt {attempt.number} failed and is retried in {wait_s:.0f} s ({job.num_failures} of "
            f"{settings.max_attempts} attempts in a row): {failure.message}",
            data=told | {"failure": failure.model_dump(mode="json"), "next_attempt_at": not_before.isoformat()},
            not_before=not_before,
        )
    elif failure.fault is Fault.SYSTEM:
        reason = f"Gave up after {job.num_failures} attempts in a row: {failure.message}"
        await transition(session, job, JobState.FAILED, reason=reason, data=told, error=failure)
    else:
        await transition(session, job, JobState.FAILED, reason=failure.message, data=told, error=failure)


async def fail_unreadable(session: AsyncSession, job: Job) -> None:
    """A queued job whose options this version does not take will never start: it fails and says so.

    Raises InvalidState if something else moved it first.
    """
    error = unreadable(job)
    failure = Failure(code=error.code, message=error.detail, fault=Fault.USER)
    await transition(session, job, JobState.FAILED, reason=error.detail, error=failure)


def unreadable(job: Job) -> SpecUnreadable:
    return SpecUnreadable(
        f"{job.id} was accepted by another version, and this one does not take its options: submit it again, with "
        "the options of this version."
    )


def backoff_s(failures: int, settings: Settings) -> float:
    """From a failure of ours to the next attempt: doubled with each in a row."""
    return min(settings.retry_backoff_s * 2.0 ** min(failures - 1, 60), settings.retry_backoff_max_s)


async def leave_attempt(session: AsyncSession, job: Job, attempt: Attempt) -> None:
    """The attempt left on request; its job becomes cancelled or paused when the cluster is seen to be clean.

    Raises InvalidState if the attempt had already ended.
    """
    await _end(session, job, attempt, LEAVING[job.state].attempt)


async def finish_leaving(session: AsyncSession, job: Job, reason: str) -> None:
    """Nothing of a cancelling or pausing job is left on the cluster: end its attempt, if it has not ended, and move the
    job on. Raises InvalidState if the job is neither any more."""
    if job.state not in LEAVING:
        raise InvalidState(f"The job is {job.state}: nothing is stopping it.", state=job.state)
    attempt = await AttemptRepository(session).current(job)
    if attempt is not None and not attempt.state.terminal:
        await leave_attempt(session, job, attempt)
    await transition(session, job, LEAVING[job.state].job, reason=reason)


async def _end(
    session: AsyncSession, job: Job, attempt: Attempt, state: AttemptState, failure: Failure | None = None
) -> None:
    """Guarded: of a report and a time-out that arrive together, one ends the attempt and the other hears of it."""
    now = utc_now()
    values = {
        "state": state,
        "finished_at": now,
        "failure": failure.model_dump(mode="json") if failure is not None else None,
    }
    if not await guarded_update(session, attempt, values, Attempt.state.in_(ACTIVE_ATTEMPTS)):
        raise InvalidState(f"Attempt {attempt.number} has already ended.")
    await guarded_update(session, job, {"gpu_seconds": job.gpu_seconds + gpu_seconds(job, attempt, now)})
