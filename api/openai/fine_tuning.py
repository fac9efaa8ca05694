"""`/v1/fine_tuning/jobs`, as OpenAI's package calls it."""

import hashlib
import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import CallerDep, DatabaseDep, IdempotencyKeyDep, ProjectDep, QueueDep, SettingsDep
from api.json_answers import as_json
from api.openai import objects
from api.openai.calls import RetryCount
from api.openai.errors import errors
from api.openai.objects import FineTuningCheckpoint, FineTuningEvent, FineTuningJob
from api.openai.request import FineTuningRequest
from api.openai.translate import alignment_job
from api.telemetry import arrived
from service.db.tables import Job, Metric
from service.errors import (
    DatasetInvalid,
    IdempotencyConflict,
    InvalidRequest,
    InvalidState,
    ModelNotFound,
    ModelUnusable,
    NotFound,
    TooLarge,
    UnknownLoss,
)
from service.exports import service as exports
from service.ids import is_id
from service.jobs import calls, lifecycle
from service.jobs import service as jobs
from service.jobs.log import LogRepository
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import ExportState
from service.queue.view import QueueNow
from service.spec.job import MAX_LABELS

router = APIRouter(prefix="/fine_tuning/jobs", tags=["OpenAI"])

_LABEL = re.compile(r"metadata\[(.+)\]")
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(description="`id` of the last object of the page before.")]


class JobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool


class EventList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FineTuningEvent]
    has_more: bool


class CheckpointList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FineTuningCheckpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


@router.post(
    "",
    responses=errors(
        InvalidRequest, UnknownLoss, ModelNotFound, ModelUnusable, DatasetInvalid, IdempotencyConflict, TooLarge
    ),
)
async def create_job(
    http: Request,
    request: FineTuningRequest,
    caller: CallerDep,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    response: Response,
    idempotency_key: IdempotencyKeyDep,
    x_stainless_retry_count: RetryCount = 0,
) -> FineTuningJob:
    """Queue a job. A request that the package repeats gets the job that the first one made, with the header
    `Idempotent-Replayed: true`."""
    spec, names = alignment_job(request)
    if idempotency_key is None:
        digest = hashlib.sha256(f"{caller.key_id}\n".encode() + await http.body()).hexdigest()
        idempotency_key = await calls.key_of_call(
            database, project_id, digest, arrived=arrived(http), is_retry=x_stainless_retry_count > 0
        )
    try:
        job, replayed = await jobs.submit(database, settings, project_id, spec, idempotency_key)
    except InvalidRequest as error:
        raise names.told(error) from error
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    async with database.reading() as session:
        return (await _job_objects(session, [job]))[0]


@router.get("", response_model=JobList, responses=errors(InvalidRequest))
async def list_jobs(
    http: Request,
    project_id: ProjectDep,
    database: DatabaseDep,
    queue: QueueDep,
    after: After = None,
    limit: Limit = 20,
) -> Response:
    """Your jobs, those of the native API too, newest first. `metadata[NAME]=VALUE` leaves only those so labelled,
    `metadata=null` only those without labels."""
    if after is not None and not is_id("job", after):
        raise InvalidRequest("'after' is not a job: use the `id` of the last one.", field="after")
    async with database.reading() as session:
        page, more = await JobRepository(session).page(project_id, limit=limit, cursor=after, metadata=_labels(http))
    seen = await queue.about(page)
    async with database.reading() as session:
        return as_json(JobList(data=await _job_objects(session, page, seen), has_more=more is not None))


@router.get("/{job_id}", responses=errors(NotFound))
async def get_job(job_id: str, project_id: ProjectDep, database: DatabaseDep, queue: QueueDep) -> FineTuningJob:
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
    seen = await queue.about([job])
    async with database.reading() as session:
        return (await _job_objects(session, [job], seen))[0]


@router.post("/{job_id}/cancel", responses=errors(NotFound, InvalidState))
async def cancel_job(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> FineTuningJob:
    """Ask the job to stop. It is `cancelled` when nothing of it is left on the cluster."""
    job = await jobs.cancel(database, project_id, job_id)
    async with database.reading() as session:
        return (await _job_objects(session, [job]))[0]


@router.post("/{job_id}/pause", responses=errors(NotFound, InvalidState))
async def pause_job(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> FineTuningJob:
    """Have the job save a checkpoint and leave the cluster: its `state` is `paused` when nothing is left there."""
    job = await lifecycle.pause(database, project_id, job_id)
    async with database.reading() as session:
        return (await _job_objects(session, [job]))[0]


@router.post("/{job_id}/resume", responses=errors(NotFound, InvalidState))
async def resume_job(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> FineTuningJob:
    """Queue a paused job at its old place; it goes on from its checkpoint."""
    job = await lifecycle.resume(database, project_id, job_id)
    async with database.reading() as session:
        return (await _job_objects(session, [job]))[0]


@router.get("/{job_id}/events", responses=errors(NotFound, InvalidRequest))
async def list_events(
    job_id: str, project_id: ProjectDep, database: DatabaseDep, after: After = None, limit: Limit = 20
) -> EventList:
    """What happened, newest first."""
    before = _event_number(job_id, after) if after is not None else None
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        events = await LogRepository(session).newest_events(job.id, before=before, limit=limit + 1)
    return EventList(data=[objects.event_object(event) for event in events[:limit]], has_more=len(events) > limit)


@router.get("/{job_id}/checkpoints", responses=errors(NotFound, InvalidRequest))
async def list_checkpoints(
    job_id: str, project_id: ProjectDep, database: DatabaseDep, after: After = None, limit: Limit = 10
) -> CheckpointList:
    """What of the job can be used as a model, newest first: what it published, once it has, and the checkpoints that
    were exported (POST /v1/jobs/ID/checkpoints/STEP/export)."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        found = await _usable(session, job)
    if after is not None:
        places = [place for place, checkpoint in enumerate(found) if checkpoint.id == after]
        if not places:
            raise InvalidRequest("'after' is not a checkpoint of this job.", field="after")
        found = found[places[0] + 1 :]
    page = found[:limit]
    return CheckpointList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(found) > limit,
    )


async def _usable(session: AsyncSession, job: Job) -> list[FineTuningCheckpoint]:
    log = LogRepository(session)
    exported = [export for export in await exports.of_job(session, job.id) if export.state is ExportState.READY]
    measured = await log.at_steps(job.id, [export.step for export in exported])
    by_step: dict[int, dict[str, Metric]] = {}
    for metric in measured:  # of a repeated step the last one counts
        by_step.setdefault(metric.step, {})[metric.split] = metric
    found = [objects.exported_object(job, export, by_step.get(export.step, {})) for export in reversed(exported)]
    trained = await log.newest_metric(job.id, "train") if objects.has_model(job) else None
    if trained is None:
        return found
    assert job.finished_at is not None
    held_out = await log.newest_metric(job.id, "held_out")
    at_the_end = {"train": trained} | ({"held_out": held_out} if held_out is not None else {})
    # an export of the last step is another object under the same name: what was published stands for both
    found = [one for one in found if one.step_number != trained.step]
    return [objects.checkpoint_object(job, trained.step, job.finished_at, at_the_end), *found]


async def _job_objects(session: AsyncSession, page: list[Job], queue: QueueNow | None = None) -> list[FineTuningJob]:
    running = await AttemptRepository(session).running([job.id for job in page if not job.state.terminal])
    return [objects.job_object(job, attempt_runs=job.id in running, queue=queue) for job in page]


def _labels(request: Request) -> dict[str, str] | None:
    """The labels that the query asks for; none at all with `metadata=null`, None if it does not ask."""
    found: dict[str, str] = {}
    asked = False
    for name, value in request.query_params.multi_items():
        if not name.startswith("metadata"):
            continue
        asked = True
        match = _LABEL.fullmatch(name)
        if match:
            label = match[1]
            if any(character in label for character in '"\\') or "\0" in label + value:
                raise InvalidRequest("No job can have such a label.", field="metadata")
            if found.setdefault(label, value) != value:
                raise InvalidRequest(f"'{name}' is asked for with two values.", field="metadata")
        elif (name, value) != ("metadata", "null") or found:
            raise InvalidRequest(
                "Ask for labels as metadata[NAME]=VALUE, or for none as metadata=null.", field="metadata"
            )
    if len(found) > MAX_LABELS:  # each would cost the query a join
        raise InvalidRequest(
            f"{len(found)} labels are asked for, and a job has {MAX_LABELS} at most.", field="metadata"
        )
    return found if asked else None


def _event_number(job_id: str, event_id: str) -> int:
    number = event_id.removeprefix(objects.event_id(job_id, 0)[:-1])
    if not (number.isascii() and number.isdecimal() and len(number) <= 9):
        raise InvalidRequest("'after' is not an event of this job: use the `id` of the last one.", field="after")
    return int(number)
