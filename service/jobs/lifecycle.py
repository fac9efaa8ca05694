"""What clients do with jobs that have begun: pause them, resume them, and retry those that have failed."""

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.db.guarded import guarded_update
from service.db.session import Database
from service.db.tables import Job
from service.errors import BudgetSpent, InvalidState
from service.jobs import admission
from service.jobs.attempts import unreadable
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import JobState
from service.jobs.transitions import transition
from service.projects import usage
from service.spec import AlignmentJob

_GOES_ON = (JobState.QUEUED, JobState.STARTING, JobState.RUNNING)
_MAY_BE_RETRIED = (JobState.FAILED, JobState.CANCELLED)


async def pause(database: Database, project_id: str, job_id: str) -> Job:
    """Ask the job to save a checkpoint and leave the cluster; a queued one is held at once. Both keep their place in
    the queue. Idempotent; InvalidState if it has ended or is being cancelled."""
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        match job.state:
            case JobState.QUEUED:
                await transition(session, job, JobState.PAUSED, reason="Held; it keeps its place in the queue.")
            case JobState.STARTING | JobState.RUNNING:
                await transition(session, job, JobState.PAUSING, reason="A client asked to pause the job.")
            case JobState.PAUSING | JobState.PAUSED:
                pass
            case _:
                raise InvalidState(f"The job is {job.state}: there is nothing to pause.", state=job.state)
        await audit.record(session, job.id)
        return job


async def resume(database: Database, project_id: str, job_id: str, max_gpu_hours: float | None = None) -> Job:
    """Put a paused job back into the queue, at the place that its age gives it; it goes on from its last checkpoint.

    max_gpu_hours: its budget from now on. A job that is not paused has it changed, and is left alone otherwise.
    Idempotent. Raises BudgetSpent if the budget leaves nothing, InvalidState if the job has ended or is stopping.
    """
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        if job.state is JobState.PAUSING:
            raise InvalidState("The job is still being paused: resume it when it is `paused`.", state=job.state)
        if job.state is not JobState.PAUSED and job.state not in _GOES_ON:
            raise InvalidState(f"The job is {job.state}: there is nothing to resume.", state=job.state)
        if max_gpu_hours is not None:
            await _set_budget(session, job, max_gpu_hours)
        if job.state is JobState.PAUSED:
            _require_budget(job)
            await guarded_update(session, job, {"num_failures": 0})
            await transition(session, job, JobState.QUEUED, reason="A client resumed the job.")
        await audit.record(session, job.id)
        return job


async def retry(database: Database, project_id: str, job_id: str, max_gpu_hours: float | None = None) -> Job:
    """Queue a failed or cancelled job again: it goes on from its last checkpoint, if it has one.

    max_gpu_hours: its budget from now on.
    Idempotent while it goes on. Raises BudgetSpent, QuotaExceeded, DatasetInvalid or ModelNotFound if its file or
    model has been deleted since, SpecUnreadable if another version accepted it and this one does not take it,
    InvalidState if it has succeeded, is paused or is stopping.
    """
    async with database.transaction() as session:
        held = await _hold_for_retry(session, project_id, job_id)
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        if job.state in _GOES_ON:
            return job
        if job.state is JobState.PAUSED:
            raise InvalidState("The job is paused: resume it.", state=job.state)
        if job.state not in _MAY_BE_RETRIED:
            raise InvalidState(f"The job is {job.state}: there is nothing to retry.", state=job.state)
        if not held:
            raise InvalidState(f"The job has {job.state} at this moment: retry it once more.", state=job.state)
        if max_gpu_hours is not None:
            await _set_budget(session, job, max_gpu_hours)
        _require_budget(job)
        await usage.hold_for_job(session, project_id, job.gpus or 0.0)
        await guarded_update(session, job, {"num_failures": 0})
        await transition(session, job, JobState.QUEUED, reason=f"A client asked to retry the {job.state} job.")
        await audit.record(session, job.id)
        return job


async def _hold_for_retry(session: AsyncSession, project_id: str, job_id: str) -> bool:
    """The quota, and what the job needs, before the job itself: in the order of a new job that starts from this one,
    so that the two do not wait in a ring. False for a job that there is nothing to retry of."""
    job = await JobRepository(session).get_in_project(job_id, project_id)
    if job.state not in _MAY_BE_RETRIED:
        return False
    await usage.hold_quota(session, project_id)
    await admission.hold(session, project_id, _readable(job))
    return True


def _readable(job: Job) -> AlignmentJob:
    try:
        return AlignmentJob.model_validate(job.spec)
    except ValidationError as error:
        raise unreadable(job) from error


async def _set_budget(session: AsyncSession, job: Job, max_gpu_hours: float) -> None:
    before = job.spec["resources"].get("max_gpu_hours")
    if before == max_gpu_hours:
        return
    spec = job.spec | {"resources": job.spec["resources"] | {"max_gpu_hours": max_gpu_hours}}
    await guarded_update(session, job, {"spec": spec})
    message = f"The budget is {max_gpu_hours:g} GPU-hours now."
    data = {"max_gpu_hours": max_gpu_hours, "before": before}
    await append_event(session, job, "budget.changed", message, data=data)


def _require_budget(job: Job) -> None:
    budget, used = job.spec["resources"].get("max_gpu_hours"), job.gpu_seconds / 3600
    if budget is not None and used >= budget:
        raise BudgetSpent(
            f'The job has held its GPUs for {used:.3g} of {budget:.3g} GPU-hours: send {{"max_gpu_hours": N}} with the '
            "request, N above that.",
            gpu_hours=used,
            max_gpu_hours=budget,
        )
