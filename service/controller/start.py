"""Starts the queued jobs that the plan (`service.queue.plan`) gives a place on the cluster."""

from contextlib import suppress

from service.clock import utc_now
from service.controller.context import Controller
from service.db.tables import Attempt
from service.errors import Unavailable
from service.files.contents import local_path, named_in
from service.jobs.attempts import start_attempt
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import AttemptState, JobState
from service.jobs.tokens import attempt_token
from service.queue import observation
from service.queue.snapshot import take
from service.spec.pools import Pool
from service.telemetry import context, traces


async def reconcile(controller: Controller) -> None:
    """Lease attempts, then submit every leased one that the cluster does not know.

    The lease is committed before the submission. After a crash between the two the attempt is found pending, and a
    submission that Ray has already is no second one.
    """
    await _lease(controller)
    trouble: Unavailable | None = None
    for attempt in await _pending(controller):
        with context.bound(job_id=attempt.job_id, attempt_id=attempt.id):
            if await controller.jobs.get(attempt.id) is None:
                try:
                    await _bring_files(controller, attempt)
                except Unavailable as error:  # others may need nothing of the object store
                    trouble = error
                    continue
                await _submit(controller, attempt)
    if trouble is not None:
        raise trouble


async def _lease(controller: Controller) -> None:
    async with controller.database.reading() as session:
        jobs = JobRepository(session)
        if not await jobs.oldest_queued(1) or await jobs.count_on_cluster() >= controller.settings.max_running_jobs:
            return  # the plan would start nothing
    await observation.observe(controller.database, controller.nodes, controller.settings)
    async with controller.database.transaction() as session:
        snapshot = await take(session, controller.settings, utc_now(), lock=True)
        for job_id in snapshot.plan().starts:
            await start_attempt(session, snapshot.jobs[job_id])


async def _pending(controller: Controller) -> list[Attempt]:
    async with controller.database.reading() as session:
        starting = {job.id for job in await JobRepository(session).in_states(JobState.STARTING)}
        active = await AttemptRepository(session).active()
    return [attempt for attempt in active if attempt.state is AttemptState.PENDING and attempt.job_id in starting]


async def _bring_files(controller: Controller, attempt: Attempt) -> None:
    """Put copies of the job's uploads on the storage, if they are in an object store."""
    if controller.settings.files_url is None:
        return
    async with controller.database.reading() as session:
        job = await JobRepository(session).get(attempt.job_id)
    for file_id in sorted(named_in(job.spec["data"])):
        with suppress(FileNotFoundError):  # the attempt says so where the client reads it
            await local_path(controller.settings, file_id)


async def _submit(controller: Controller, attempt: Attempt) -> None:
    settings = controller.settings
    traceparent = traces.traceparent(attempt.job_id)
    await controller.jobs.submit(
        attempt.id,
        controller.code.attempt,
        env_vars={
            "PLUMBLINE_API_URL": settings.callback_url,
            "PLUMBLINE_ATTEMPT_ID": attempt.id,
            "PLUMBLINE_ATTEMPT_TOKEN": attempt_token(settings, attempt.id),
        }
        | ({"TRACEPARENT": traceparent} if traceparent else {}),
        label_selector=Pool.CONTROL.selector,
    )
