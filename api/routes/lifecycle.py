"""What becomes of jobs after they were submitted: pause, resume, retry, clone, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import Field

from api.deps import DatabaseDep, IdempotencyKeyDep, ProjectDep, SettingsDep
from api.problems import problems
from api.routes.jobs import SUBMITTED
from api.views import JobDeleted, JobView
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.errors import (
    BudgetSpent,
    DatasetInvalid,
    IdempotencyConflict,
    InvalidRequest,
    InvalidState,
    ModelNotFound,
    ModelUnusable,
    NotFound,
    QuotaExceeded,
    TooLarge,
    UnknownLoss,
)
from service.jobs import clone, deletion, lifecycle
from service.spec.base import SpecModel

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])


class GoOn(SpecModel):
    max_gpu_hours: float | None = Field(
        None,
        gt=0,
        le=1e7,
        description="The job's budget from now on (`resources.max_gpu_hours`), what it has used included.",
    )


Patch = Annotated[
    dict[str, Any],
    Body(
        description="JSON Merge Patch (RFC 7396): lists are replaced whole, null takes a field back to its default.",
        examples=[{"name": "more careful", "losses": [{"type": "sigmoid", "beta": 0.3}]}],
    ),
]


@router.post("/pause", status_code=202, responses=problems(NotFound, InvalidState))
async def pause_job(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> JobView:
    """Have the job save a checkpoint and leave the cluster; a queued one is held. It is `paused` when nothing of it is
    left there, and keeps its place in the queue. Asking again is harmless."""
    return await _view(database, await lifecycle.pause(database, project_id, job_id))


@router.post("/resume", status_code=202, responses=problems(NotFound, InvalidState, BudgetSpent))
async def resume_job(job_id: str, project_id: ProjectDep, database: DatabaseDep, body: GoOn | None = None) -> JobView:
    """Queue a paused job at its old place; it goes on from its last checkpoint. With `max_gpu_hours`, its budget is
    changed, also while it runs. Asking again is harmless."""
    budget = body.max_gpu_hours if body else None
    return await _view(database, await lifecycle.resume(database, project_id, job_id, budget))


@router.post(
    "/retry",
    status_code=202,
    responses=problems(
        NotFound, InvalidState, BudgetSpent, QuotaExceeded, DatasetInvalid, ModelNotFound, ModelUnusable
    ),
)
async def retry_job(job_id: str, project_id: ProjectDep, database: DatabaseDep, body: GoOn | None = None) -> JobView:
    """Queue a failed or cancelled job again, under its own ID: it goes on from its last checkpoint, if it has one."""
    budget = body.max_gpu_hours if body else None
    return await _view(database, await lifecycle.retry(database, project_id, job_id, budget))


@router.post(
    "/clone",
    status_code=201,
    responses=SUBMITTED
    | problems(
        NotFound,
        IdempotencyConflict,
        TooLarge,
        InvalidRequest,
        UnknownLoss,
        ModelNotFound,
        ModelUnusable,
        DatasetInvalid,
    ),
)
async def clone_job(
    job_id: str,
    patch: Patch,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    response: Response,
    idempotency_key: IdempotencyKeyDep,
) -> JobView:
    """Queue a new job with the specification of this one and changes. It begins anew, and is checked as any other."""
    job, replayed = await clone.clone(database, settings, project_id, job_id, patch, idempotency_key)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return await _view(database, job)


@router.delete("", responses=problems(NotFound, InvalidState))
async def delete_job(job_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep) -> JobDeleted:
    """Delete an ended job with its model, checkpoints, events and metrics. Uploaded files and reference log-probs,
    which other jobs may share, stay. Refused while the model is deployed or needed by another job."""
    await deletion.delete(database, settings, project_id, job_id)
    return JobDeleted(id=job_id)


async def _view(database: Database, job: Job) -> JobView:
    async with database.reading() as session:
        return JobView.of(job, await deployments.find(session, job))
