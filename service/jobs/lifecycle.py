"""What clients do with jobs that have begun: pause them, resume them, and retry those that have failed."""

from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.db.guarded import guarded_update
from service.db.session import Database
from service.db.tables import Job
from service.errors import BudgetSpent, InvalidState
from service.jobs import admission
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import JobState
from service.jobs.transitions import transition
from service.projects import usage
from service.spec import AlignmentJob

_GOES_ON = (JobState.QUEUED, JobState.STARTING, JobState.RUNNING)


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
    model has been deleted since, InvalidState if it has succeeded, is paused or is stopping.
    """
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        if job.state in _GOES_ON:
            return job
        if job.state is JobState.PAUSED:
            raise InvalidState("The job is paused: resume it.", state=job.state)
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            raise InvalidState(f"The job is {job.state}: there is nothing to retry.", state=job.state)
        if max_gpu_hours is not None:
            await _set_budget(session, job, max_gpu_hours)
        _require_budget(job)
        await usage.hold_for_job(session, project_id, job.gpus or 0.0)
        await admission.hold(session, project_id, AlignmentJob.model_validate(job.spec))
        await guarded_update(session, job, {"num_failures": 0})
        await transition(session, job, JobState.QUEUED, reason=f"A client asked to retry the {job.state} job.")
        await audit.record(session, job.id)
        return job


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
