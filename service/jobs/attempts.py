"""How attempts begin and end, and what that means for their job."""

from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.tables import Attempt, Job
from service.deployments import service as deployments
from service.errors import InvalidState
from service.jobs.repository import ACTIVE_ATTEMPTS, AttemptRepository, JobRepository
from service.jobs.states import AttemptState, JobState
from service.jobs.transitions import transition
from service.settings import Settings
from service.spec.reports import Failure, Fault


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
    await _end(session, attempt, AttemptState.SUCCEEDED)
    await transition(
        session, job, JobState.SUCCEEDED, reason="The model is published.", data={"attempt": attempt.number}
    )
    if job.spec.get("serve", True):
        await deployments.want(session, job)


async def fail_attempt(session: AsyncSession, attempt: Attempt, failure: Failure, settings: Settings) -> None:
    """End the attempt; its job is queued again after a failure on our side, while `settings.max_attempts` allows it.

    A job that is being cancelled stays so until the cluster is seen to be clean. Raises InvalidState if the attempt
    had already ended.
    """
    job = await JobRepository(session).get(attempt.job_id, lock=True)
    await _end(session, attempt, AttemptState.FAILED, failure)
    if job.state is JobState.CANCELLING:
        return
    told = {"attempt": attempt.number}
    if failure.fault is Fault.SYSTEM and job.num_attempts < settings.max_attempts:
        await transition(
            session,
            job,
            JobState.QUEUED,
            reason=f"Attempt {attempt.number} of {settings.max_attempts} failed and will be retried: {failure.message}",
            data=told | {"failure": failure.model_dump(mode="json")},
        )
    elif failure.fault is Fault.SYSTEM:
        reason = f"Gave up after {job.num_attempts} attempts: {failure.message}"
        await transition(session, job, JobState.FAILED, reason=reason, data=told, error=failure)
    else:
        await transition(session, job, JobState.FAILED, reason=failure.message, data=told, error=failure)


async def cancel_attempt(session: AsyncSession, attempt: Attempt) -> None:
    """The attempt stopped on request; its job becomes cancelled when the cluster is seen to be clean.

    Raises InvalidState if the attempt had already ended.
    """
    await _end(session, attempt, AttemptState.CANCELLED)


async def finish_cancelled(session: AsyncSession, job: Job, reason: str) -> None:
    """Nothing of a cancelling job is left on the cluster: end its attempt, if it has not ended, and the job."""
    attempt = await AttemptRepository(session).current(job)
    if attempt is not None and not attempt.state.terminal:
        await _end(session, attempt, AttemptState.CANCELLED)
    await transition(session, job, JobState.CANCELLED, reason=reason)


async def _end(session: AsyncSession, attempt: Attempt, state: AttemptState, failure: Failure | None = None) -> None:
    """Guarded: of a report and a time-out that arrive together, one ends the attempt and the other hears of it."""
    values = {
        "state": state,
        "finished_at": utc_now(),
        "failure": failure.model_dump(mode="json") if failure is not None else None,
    }
    if not await guarded_update(session, attempt, values, Attempt.state.in_(ACTIVE_ATTEMPTS)):
        raise InvalidState(f"Attempt {attempt.number} has already ended.")
