"""Jobs: submit, list, look at, cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Response

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.examples import JOBS
from api.problems import problems
from api.views import JobPage, JobView
from service.deployments import service as deployments
from service.errors import (
    DataReportMissing,
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
from service.jobs import service as jobs
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.spec import AlignmentJob
from service.spec.data_report import DataReport

router = APIRouter(prefix="/jobs", tags=["jobs"])

_REPLAYED = {"schema": {"const": "true"}, "description": "An earlier request with this Idempotency-Key made the job."}
SUBMITTED: dict[int | str, dict[str, Any]] = {201: {"headers": {"Idempotent-Replayed": _REPLAYED}}}


@router.post(
    "",
    status_code=201,
    responses=SUBMITTED
    | problems(
        IdempotencyConflict, TooLarge, InvalidRequest, UnknownLoss, ModelNotFound, ModelUnusable, DatasetInvalid
    ),
)
async def submit_job(
    spec: Annotated[AlignmentJob, Body(openapi_examples=JOBS)],
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Makes it safe to send the request again: the same key and body get the same job, with the "
            "header `Idempotent-Replayed: true`; another body with the key is refused.",
        ),
    ] = None,
) -> JobView:
    """Queue a job. Its file's rows and its models are checked first; a job that is accepted can run."""
    job, replayed = await jobs.submit(database, settings, project_id, spec, idempotency_key)
    if not replayed:
        return JobView.of(job, None)
    response.headers["Idempotent-Replayed"] = "true"
    async with database.reading() as session:
        return JobView.of(job, await deployments.find(session, job))


@router.get("", responses=problems(InvalidRequest))
async def list_jobs(
    project_id: ProjectDep,
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    state: JobState | None = None,
) -> JobPage:
    """Your jobs, newest first."""
    async with database.reading() as session:
        page, next_cursor = await JobRepository(session).page(project_id, limit=limit, cursor=cursor, state=state)
        deployed = await deployments.find_many(session, [job.id for job in page])
    return JobPage(data=[JobView.of(job, deployed.get(job.id)) for job in page], next_cursor=next_cursor)


@router.get("/{job_id}", responses=problems(NotFound))
async def get_job(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> JobView:
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return JobView.of(job, await deployments.find(session, job))


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
