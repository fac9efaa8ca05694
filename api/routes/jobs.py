"""Jobs: submit, list, look at, cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from api.deps import DatabaseDep, IdempotencyKeyDep, ListedDep, ProjectDep, QueueDep, SettingsDep
from api.examples import JOBS
from api.json_answers import as_json
from api.problems import problems
from api.queue_views import DryRunView
from api.views import JobPage, JobView
from service import audit
from service.deployments import service as deployments
from service.errors import (
    DataReportMissing,
    DatasetInvalid,
    DoesNotFitMemory,
    IdempotencyConflict,
    InvalidRequest,
    InvalidState,
    ModelNotFound,
    ModelUnusable,
    NotFound,
    PoolMissing,
    PoolTooSmall,
    TooLarge,
    UnknownLoss,
)
from service.jobs import dry_run as dry_runs
from service.jobs import service as jobs
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.spec import AlignmentJob
from service.spec.data_report import DataReport
from service.spec.job import MAX_LABELS
from service.text import storable

router = APIRouter(prefix="/jobs", tags=["jobs"])

_REPLAYED = {"schema": {"const": "true"}, "description": "An earlier request with this Idempotency-Key made the job."}
SUBMITTED: dict[int | str, dict[str, Any]] = {201: {"headers": {"Idempotent-Replayed": _REPLAYED}}}
_DRY_RUN: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRunView, "description": "With `dry_run`: what would become of the job. Nothing was written."},
}


@router.post(
    "",
    status_code=201,
    response_model=JobView,
    responses=SUBMITTED
    | _DRY_RUN
    | problems(
        IdempotencyConflict,
        TooLarge,
        InvalidRequest,
        UnknownLoss,
        ModelNotFound,
        ModelUnusable,
        DatasetInvalid,
        PoolMissing,
        PoolTooSmall,
        DoesNotFitMemory,
    ),
)
async def submit_job(
    spec: Annotated[AlignmentJob, Body(openapi_examples=JOBS)],
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    queue: QueueDep,
    response: Response,
    idempotency_key: IdempotencyKeyDep,
    dry_run: Annotated[
        bool, Query(description="Only say what would become of the job: every check, cost and time. Needs no key.")
    ] = False,
) -> JobView | Response:
    """Queue a job. Its file's rows, its models and the cluster's pools are checked first; a job that is accepted can
    run."""
    if dry_run:
        audit.reads_only()
        report = await dry_runs.dry_run(database, settings, project_id, spec, await queue.now())
        return Response(DryRunView.model_validate(report).model_dump_json(), media_type="application/json")
    job, replayed = await jobs.submit(database, settings, project_id, spec, idempotency_key)
    if not replayed:
        return JobView.of(job, None)
    response.headers["Idempotent-Replayed"] = "true"
    async with database.reading() as session:
        return JobView.of(job, await deployments.find(session, job))


@router.get("", response_model=JobPage, responses=problems(InvalidRequest, NotFound))
async def list_jobs(
    project_id: ListedDep,
    database: DatabaseDep,
    queue: QueueDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    state: Annotated[list[JobState] | None, Query(description="Any of these; may be given several times.")] = None,
    label: Annotated[
        list[str] | None,
        Query(max_length=MAX_LABELS, description="`NAME=VALUE`, of `metadata`. Of several, jobs with all."),
    ] = None,
    q: Annotated[
        str | None,
        Query(max_length=200, description="Words that all occur in name, ID, owner, model, data, losses or labels."),
    ] = None,
    owner: Annotated[str | None, Query(max_length=200, description="Who made the job.")] = None,
    sweep_id: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """Your jobs, newest first. For operators those of any project, or of all; their pages are for their own project."""
    metadata = _labels(label) if label else None
    filters = {"states": state or (), **storable({"search": q, "owner": owner, "sweep_id": sweep_id})}
    async with database.reading() as session:
        page, next_cursor = await JobRepository(session).page(
            project_id, limit=limit, cursor=cursor, metadata=metadata, **filters
        )
        deployed = await deployments.find_many(session, [job.id for job in page])
    seen = await queue.about(page)
    return as_json(JobPage(data=[JobView.of(job, deployed.get(job.id), seen) for job in page], next_cursor=next_cursor))


def _labels(asked: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in asked:
        name, equals, value = one.partition("=")
        if not (name and equals) or "\0" in one:
            raise InvalidRequest("'label' is NAME=VALUE: the label's name, '=' and its value.", field="label")
        if found.setdefault(name, value) != value:
            raise InvalidRequest(
                f"The label '{name[:64]}' is asked for with two values: no job has both.", field="label"
            )
    return found


@router.get("/{job_id}", responses=problems(NotFound))
async def get_job(job_id: str, project_id: ProjectDep, database: DatabaseDep, queue: QueueDep) -> JobView:
    """One of your jobs; while it waits, with why and until when."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        deployment = await deployments.find(session, job)
    return JobView.of(job, deployment, await queue.about([job]))


@router.get("/{job_id}/data-report", responses=problems(NotFound, DataReportMissing))
async def get_data_report(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> DataReport:
    """What the job's data is like: lengths, rows that were left out and why, duplicates, contradictions, and advice.
    It is there when the rows are prepared, also for a job that was refused for them."""
    async with database.reading() as session:
        return await jobs.data_report(session, project_id, job_id)


@router.post("/{job_id}/cancel", status_code=202, responses=problems(NotFound, InvalidState))
async def cancel_job(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> JobView:
    """Ask the job to stop. It is `cancelled` when nothing of it is left on the cluster; asking again is harmless."""
    job = await jobs.cancel(database, project_id, job_id)
    async with database.reading() as session:
        return JobView.of(job, await deployments.find(session, job))
