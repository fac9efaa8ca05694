"""Ends cancelled jobs on the cluster. An attempt hears of the cancel in the answer to its next report and has
`settings.cancel_grace_s` from then to leave by itself; a driver that has not spoken yet is stopped at once."""

from datetime import timedelta

from service.clock import utc_now
from service.cluster.jobs import RayJobStatus
from service.controller.context import Controller
from service.db.tables import Attempt, Job
from service.errors import InvalidState
from service.jobs.attempts import finish_cancelled
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import AttemptState, JobState


async def reconcile(controller: Controller) -> None:
    async with controller.database.reading() as session:
        cancelling = await JobRepository(session).in_states(JobState.CANCELLING)
        attempts = {job.id: await AttemptRepository(session).current(job) for job in cancelling}
    for job in cancelling:
        reason = await _end_on_cluster(controller, job, attempts[job.id])
        if reason is not None:
            await _finish(controller, job, reason)


async def _end_on_cluster(controller: Controller, job: Job, attempt: Attempt | None) -> str | None:
    """Why nothing of the job is left on the cluster; None while something may be."""
    if attempt is None:
        return "Cancelled before an attempt was made."
    ray_job = await controller.jobs.get(attempt.id)
    if ray_job is None:
        return "Cancelled; the cluster holds nothing of the attempt."
    if ray_job.status.terminal:
        return "Cancelled; the attempt's driver has ended and its workers with it."
    if attempt.state is AttemptState.PENDING or _grace_is_over(controller, job):
        await controller.jobs.stop(attempt.id)
        if ray_job.status is RayJobStatus.PENDING and _grace_is_over(controller, job):
            # Ray cannot withdraw a driver that waits for a node. It is stopped where it would start, and the ended
            # attempt's token opens nothing any more.
            return "Cancelled; the attempt's driver was never given a node."
    return None


def _grace_is_over(controller: Controller, job: Job) -> bool:
    assert job.cancel_requested_at is not None
    return utc_now() - job.cancel_requested_at > timedelta(seconds=controller.settings.cancel_grace_s)


async def _finish(controller: Controller, job: Job, reason: str) -> None:
    try:
        async with controller.database.transaction() as session:
            fresh = await JobRepository(session).get(job.id, lock=True)
            await finish_cancelled(session, fresh, reason)
    except InvalidState:  # it published its model before it heard of the cancel
        return
