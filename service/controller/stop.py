"""Ends attempts of jobs that are cancelled or paused. An attempt hears of it in the answer to its next report and has
`settings.cancel_grace_s` or `settings.pause_grace_s` from then to leave by itself; a driver that has not spoken yet is
stopped at once."""

from datetime import datetime, timedelta

from service.clock import utc_now
from service.cluster.jobs import RayJobStatus
from service.controller.context import Controller
from service.db.tables import Attempt, Job
from service.errors import InvalidState
from service.jobs.attempts import finish_leaving
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import AttemptState, JobState
from service.settings import Settings


async def reconcile(controller: Controller) -> None:
    async with controller.database.reading() as session:
        leaving = await JobRepository(session).in_states(JobState.PAUSING, JobState.CANCELLING)
        attempts = {job.id: await AttemptRepository(session).current(job) for job in leaving}
    for job in leaving:
        reason = await _end_on_cluster(controller, job, attempts[job.id])
        if reason is not None:
            done = "Paused" if job.state is JobState.PAUSING else "Cancelled"
            await _finish(controller, job, f"{done}{reason}")


async def _end_on_cluster(controller: Controller, job: Job, attempt: Attempt | None) -> str | None:
    """Why nothing of the job is left on the cluster; None while something may be."""
    if attempt is None:
        return " before an attempt was made."
    ray_job = await controller.jobs.get(attempt.id)
    if ray_job is None:
        return "; the cluster holds nothing of the attempt."
    if ray_job.status.terminal:
        return "; the attempt's driver has ended and its workers with it."
    grace_is_over = utc_now() > _until(controller.settings, job)
    if attempt.state is AttemptState.PENDING or grace_is_over:
        await controller.jobs.stop(attempt.id)
        if ray_job.status is RayJobStatus.PENDING and grace_is_over:
            # Ray cannot withdraw a driver that waits for a node. It is stopped where it would start, and the ended
            # attempt's token opens nothing any more.
            return "; the attempt's driver was never given a node."
    return None


def _until(settings: Settings, job: Job) -> datetime:
    """When the attempt should have left by itself."""
    if job.state is JobState.PAUSING:
        asked, grace_s = job.pause_requested_at, settings.pause_grace_s
    else:
        asked, grace_s = job.cancel_requested_at, settings.cancel_grace_s
    assert asked is not None
    return asked + timedelta(seconds=grace_s)


async def _finish(controller: Controller, job: Job, reason: str) -> None:
    try:
        async with controller.database.transaction() as session:
            fresh = await JobRepository(session).get(job.id, lock=True)
            if fresh.state is job.state:  # else it was cancelled while it was being paused: look again
                await finish_leaving(session, fresh, reason)
    except InvalidState:  # it published its model before it heard
        return
