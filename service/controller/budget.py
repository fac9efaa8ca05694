"""Pauses jobs that have held their GPUs for as long as `resources.max_gpu_hours` allows."""

from service.clock import utc_now
from service.controller.context import Controller
from service.jobs.gpu_hours import gpu_hours
from service.jobs.repository import AttemptRepository, JobRepository, append_event
from service.jobs.states import JobState
from service.jobs.transitions import transition


async def reconcile(controller: Controller) -> None:
    async with controller.database.reading() as session:
        running = await JobRepository(session).running_on_budget()
    now = utc_now()
    for job, attempt in running:
        if gpu_hours(job, attempt, now) >= job.spec["resources"]["max_gpu_hours"]:
            await _pause_if_spent(controller, job.id)


async def _pause_if_spent(controller: Controller, job_id: str) -> None:
    """With what is so now: the job may have ended, or been given more."""
    async with controller.database.transaction() as session:
        job = await JobRepository(session).get(job_id, lock=True)
        used = gpu_hours(job, await AttemptRepository(session).current(job), utc_now())
        budget = job.spec["resources"]["max_gpu_hours"]
        if job.state is not JobState.RUNNING or budget is None or used < budget:
            return
        message = (
            f"The job has held its GPUs for {used:.3g} of {budget:.3g} GPU-hours. It saves a checkpoint and is paused; "
            f'POST /v1/jobs/{job.id}/resume with {{"max_gpu_hours": N}}, N above that, and it goes on.'
        )
        await append_event(session, job, "budget.reached", message, data={"gpu_hours": used, "max_gpu_hours": budget})
        await transition(session, job, JobState.PAUSING, reason="The budget of GPU-hours is spent.")
