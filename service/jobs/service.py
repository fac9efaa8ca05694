"""What clients do with jobs: submit them and cancel them."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.db.inserts import Row
from service.db.session import Database
from service.db.tables import Job
from service.errors import DataReportMissing, IdempotencyConflict, InvalidRequest, InvalidState, QuotaExceeded
from service.ids import new_id
from service.jobs import admission
from service.jobs.asked import Answered, ask
from service.jobs.continuation import with_adapter_options
from service.jobs.gpu_hours import check_budget
from service.jobs.log import LogRepository
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.jobs.transitions import transition
from service.projects import usage
from service.projects.quota import Quota, gpus_held
from service.queue.size import JobSize
from service.settings import Settings
from service.spec import AlignmentJob
from service.spec.data_report import DataReport
from service.text import first_unstorable

MAX_KEY = 255


async def submit(
    database: Database,
    settings: Settings,
    project_id: str,
    spec: AlignmentJob,
    idempotency_key: str | None = None,
    *,
    cloned_from: str | None = None,
) -> tuple[Job, bool]:
    """Check and queue a job; returns it and whether an earlier request with this key had already made it.

    cloned_from: the job that the spec was taken from.
    Raises what `admission.check` and `with_adapter_options` raise, QuotaExceeded, and IdempotencyConflict if the key
    was used with another body.
    """
    check_key(idempotency_key)
    if field := first_unstorable(spec.model_dump(mode="json")):
        raise InvalidRequest(f"'{field}' holds a NUL character, which is not text: remove it.", field=field)
    digest = _digest(spec)
    async with database.reading(brief=True) as session:
        answered = await ask(session, project_id, spec, idempotency_key)
        # Before the checks: a repeated request is answered even if a model it named has gone in the meantime.
        if answered.made_before and (job := await _replayed(session, project_id, idempotency_key or "", digest)):
            return job, True
    size = await admission.check(database, settings, project_id, spec, known=answered.known)
    spec = await with_adapter_options(database, settings, project_id, spec)
    if answered.quota.max_storage_bytes is not None:
        await usage.measure_models(database, settings, project_id)
    columns = {"id": new_id("job"), "idempotency_key": idempotency_key, "cloned_from": cloned_from}
    try:
        async with database.transaction(brief=answered.quota == Quota()) as session:
            with audit.recording(columns["id"]) as beside:
                job = await enqueue(
                    session, settings, project_id, spec, digest, size, answered=answered, beside=beside, **columns
                )
        return job, False
    except (IntegrityError, QuotaExceeded):
        # Two requests with one key raced; the other one came through, and may have taken the last of a quota.
        if idempotency_key is None:
            raise
        async with database.reading() as session:
            made = await _replayed(session, project_id, idempotency_key, digest)
        if made is None:
            raise
        return made, True


async def cancel(database: Database, project_id: str, job_id: str) -> Job:
    """Ask for the job to stop. Idempotent; InvalidState if it has already succeeded or failed."""
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        if job.state in (JobState.SUCCEEDED, JobState.FAILED):
            raise InvalidState(f"The job has already {job.state}: there is nothing left to cancel.", state=job.state)
        if job.state in (JobState.QUEUED, JobState.PAUSED):
            await transition(session, job, JobState.CANCELLED, reason=f"Cancelled while it was {job.state}.")
        elif job.state in (JobState.STARTING, JobState.RUNNING, JobState.PAUSING):
            await transition(session, job, JobState.CANCELLING, reason="A client asked to cancel the job.")
        await audit.record(session, job.id)
        return job


async def data_report(session: AsyncSession, project_id: str, job_id: str) -> DataReport:
    """What the newest attempt found in the job's data. Raises DataReportMissing until one has read it all."""
    job = await JobRepository(session).get_in_project(job_id, project_id)
    event = await LogRepository(session).newest_event(job.id, "data.prepared")
    if event is None and job.events_removed_to:
        raise DataReportMissing("The job's events have been removed by retention, and its data report with them.")
    if event is None:
        raise DataReportMissing(
            f"The job is {job.state} and its rows are not prepared yet: the report is there after the event "
            "`data.prepared`."
        )
    try:
        return DataReport.model_validate(event.data)
    except ValidationError as error:
        raise DataReportMissing(
            "The job's rows were prepared by an earlier version, which made another report: it is the data of the "
            f"event {event.number}."
        ) from error


async def _replayed(session: AsyncSession, project_id: str, key: str, digest: str) -> Job | None:
    job = await JobRepository(session).find_by_key(project_id, key)
    if job is not None and job.body_sha256 != digest:
        raise IdempotencyConflict(
            f"This Idempotency-Key made {job.id} from another body: use a new key for a new job.", job_id=job.id
        )
    if job is not None and job.deleted_at is not None:
        raise IdempotencyConflict(
            f"This Idempotency-Key made {job.id}, which was deleted since: use a new key for a new job.", job_id=job.id
        )
    return job


async def enqueue(
    session: AsyncSession,
    settings: Settings,
    project_id: str,
    spec: AlignmentJob,
    digest: str,
    size: JobSize,
    *,
    answered: Answered | None = None,
    beside: Sequence[Row] = (),
    **columns: Any,
) -> Job:
    """Add a checked job to the queue. Raises what `admission.hold` does, QuotaExceeded, and IntegrityError if its key
    was used.

    answered: by the database before the checks. A project that had no limits and no webhooks then is not asked again:
    who gives it some meanwhile comes after this job. beside: rows to write with it. columns: further ones of its row.
    """
    gpus = gpus_held(spec, unset=settings.unset_gpus)
    check_budget(spec, gpus)
    if answered is None or answered.quota != Quota():
        await usage.hold_for_job(session, project_id, gpus)
    await admission.hold(session, project_id, spec)
    act = audit.current()
    return await JobRepository(session).add(
        beside=beside,
        may_be_told=answered is None or answered.has_webhooks,
        owner=act.name if act is not None else None,
        project_id=project_id,
        body_sha256=digest,
        spec=spec.model_dump(mode="json"),  # with the defaults of today
        priority=spec.priority,
        size=asdict(size),
        gpus=gpus,
        **({"id": new_id("job")} | columns),
    )


def check_key(key: str | None) -> None:
    """Raises InvalidRequest for what is no Idempotency-Key."""
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters, such as a UUID.",
            field="Idempotency-Key",
        )


def _digest(spec: AlignmentJob) -> str:
    """Of what the client set, in our spelling: key order, white space and new defaults make no other body of it."""
    return hashlib.sha256(spec.model_dump_json(exclude_unset=True).encode()).hexdigest()
