"""Starts the queued jobs that the plan (`service.queue.plan`) gives a place on the cluster."""

import asyncio
import time
from contextlib import suppress

from pydantic import ValidationError

from service.archive.local import bring_models
from service.clock import utc_now
from service.controller.context import Controller
from service.controller.together import together
from service.db.tables import Attempt
from service.errors import InvalidState, ModelNotFound, ModelUnusable, ServiceError, SpecUnreadable, Unavailable
from service.files.contents import local_path, named_in
from service.jobs.attempts import fail_attempt, fail_unreadable, start_attempt, unreadable
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import AttemptState, JobState
from service.jobs.tokens import attempt_token
from service.queue import observation
from service.queue.snapshot import spec_of, take
from service.spec.pools import Pool
from service.spec.reports import Failure, Fault
from service.telemetry import context, traces

# In one transaction. The lease cannot be renewed beside it, so that it must be much shorter than `settings.lease_s`:
# what the empty cluster has room for may be hundreds, and the database may be far away.
_STARTS = 50
_SHARE_OF_LEASE = 1 / 3

# Of one driver: the most it was seen to take. What a node has of memory says how many are there at one time, and where
# nodes are added on demand, when another one comes.
_DRIVER_BYTES = 2**30


async def reconcile(controller: Controller) -> None:
    """Lease attempts, then submit every leased one that the cluster does not know.

    The lease is committed before the submission. After a crash between the two the attempt is found pending, and a
    submission that Ray has already is no second one.
    """
    await _lease(controller)
    troubles: list[Unavailable] = []
    turn = asyncio.Lock()  # jobs of a sweep read the same file, and the first has fetched it for the others

    async def begin(attempt: Attempt) -> None:
        with context.bound(job_id=attempt.job_id, attempt_id=attempt.id):
            if controller.jobs.known_lately(attempt.id) or await controller.jobs.get(attempt.id) is not None:
                return  # it has no word of its driver yet
            async with turn:
                try:
                    await _bring(controller, attempt)
                except Unavailable as error:  # others may need nothing of the object store
                    troubles.append(error)
                    return
                except (ModelNotFound, ModelUnusable, SpecUnreadable) as error:
                    await _fail(controller, attempt, error)
                    return
            await _submit(controller, attempt)

    await together(begin, await _pending(controller))
    if troubles:
        raise troubles[-1]


async def _lease(controller: Controller) -> None:
    async with controller.database.reading() as session:
        jobs = JobRepository(session)
        if not await jobs.oldest_queued(1) or await jobs.count_on_cluster() >= controller.settings.max_running_jobs:
            return  # the plan would start nothing
    await observation.observe(controller.database, controller.nodes, controller.settings)
    async with controller.database.transaction() as session:
        until = time.monotonic() + _SHARE_OF_LEASE * controller.settings.lease_s
        snapshot = await take(session, controller.settings, utc_now(), lock=True)
        for job_id in snapshot.plan().starts[:_STARTS]:
            await start_attempt(session, snapshot.jobs[job_id])
            if time.monotonic() > until:
                break  # the next pass starts the others
        for job in snapshot.unreadable:
            await fail_unreadable(session, job)


async def _pending(controller: Controller) -> list[Attempt]:
    async with controller.database.reading() as session:
        active = await AttemptRepository(session).active(JobState.STARTING)
    return [attempt for attempt in active if attempt.state is AttemptState.PENDING]


async def _bring(controller: Controller, attempt: Attempt) -> None:
    """Put copies of the job's uploads and models on the storage, of those that are in an object store only.

    Models come in the background, for as long as `Unavailable` is raised: other jobs need not wait for them.
    """
    async with controller.database.reading() as session:
        job = await JobRepository(session).get(attempt.job_id)
    try:
        spec = spec_of(job)
    except ValidationError as error:
        raise unreadable(job) from error
    await bring_models(controller.database, controller.settings, spec, wait_s=0)
    if controller.settings.files_url is None:
        return
    for file_id in sorted(named_in(job.spec["data"])):
        with suppress(FileNotFoundError):  # the attempt says so where the client reads it
            await local_path(controller.settings, file_id)


async def _fail(controller: Controller, attempt: Attempt, error: ServiceError) -> None:
    """For what only the user can change, before anything of the attempt is on the cluster."""
    failure = Failure(code=error.code, message=error.detail, fault=Fault.USER)
    try:
        async with controller.database.transaction() as session:
            fresh = await AttemptRepository(session).get(attempt.id)
            await fail_attempt(session, fresh, failure, controller.settings)
    except InvalidState:  # a client has cancelled the job
        return


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
        memory_bytes=_DRIVER_BYTES,
    )
