"""`/v1/models`, as OpenAI's package calls it: the names that models were promoted to, the models that your jobs
published, the checkpoints that were exported, and the bases served beside them."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.openai.errors import errors
from api.openai.objects import seconds
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.errors import InvalidRequest, InvalidState, NotFound
from service.exports import service as exports
from service.ids import is_id
from service.jobs import published
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState
from service.paging import MAX_PAGE
from service.promotions import service as promotions
from service.promotions.names import is_name
from service.serving.models import Side, find, model_name, model_of

router = APIRouter(prefix="/models", tags=["OpenAI"])

_ANSWERING = (DeploymentState.READY, DeploymentState.SLEEPING)  # the first request wakes them


class Model(BaseModel):
    id: str = Field(examples=["job:job-019316f0a6b2f3c1d4e5a"])
    object: Literal["model"] = "model"
    created: int = Field(description="When the model was made or the name began to mean it, in seconds since 1970.")
    owned_by: str
    base: str = Field(description="The model that the job started from.")
    name: str | None = Field(description="The job's name.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
    has_more: bool = Field(description="Whether there are further ones: ask for them with `after`.")


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


@router.get("", responses=errors(InvalidRequest))
async def list_models(
    project_id: ProjectDep,
    database: DatabaseDep,
    after: Annotated[str | None, Query(description="`id` of the last object of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
) -> ModelList:
    """Names first, then models, newest first, then exported checkpoints. A model that jobs only start from is listed
    while it is served beside what a job made of it."""
    is_of_job = after is not None and is_id("job", model_of(after)[0])
    if after is not None and not (is_of_job or is_name(after)):
        raise InvalidRequest("'after' is no model: use the `id` of the last one.", field="after")
    job_id, step, _ = model_of(after) if after is not None and is_of_job else (None, None, None)
    data: list[Model] = []
    async with database.reading() as session:
        if job_id is None:
            data += await _named(session, project_id, after, limit + 1)
        if step is None and len(data) <= limit:
            data += await _all_published(session, project_id, job_id, after, limit + 1 - len(data))
        if len(data) <= limit:
            place = (job_id, step) if job_id is not None and step is not None else None
            made = await exports.ready_in_project(session, project_id, limit=limit + 1 - len(data), after=place)
            data += [_model(model_name(job.id, step=export.step), job, export.updated_at) for job, export in made]
    return ModelList(data=data[:limit], has_more=len(data) > limit)


async def _named(session: AsyncSession, project_id: str, after: str | None, limit: int) -> list[Model]:
    named = await promotions.names(session, project_id, limit=limit, after=after)
    behind = {
        job.id: job for job in await JobRepository(session).get_many([promotion.job_id for _, promotion in named])
    }
    return [
        _model(name.name, behind[promotion.job_id], promotion.became_current_at or promotion.created_at)
        for name, promotion in named
    ]


async def _all_published(
    session: AsyncSession, project_id: str, newest: str | None, after: str | None, limit: int
) -> list[Model]:
    """newest: the job of `after`, of whose two models the second may be missing yet."""
    rows = await published.page(session, project_id, limit=limit + 1, newest=newest)
    found: list[Model] = []
    for job, state in rows:
        found.append(_published(job, Side.ALIGNED))
        if state in _ANSWERING:
            found.append(_published(job, Side.BASE))
    if newest is not None and after is not None:
        aligned, base = model_name(newest), model_name(newest, Side.BASE)
        seen = {aligned, base} if model_of(after)[2] is Side.BASE else {aligned}
        found = [model for model in found if model.id not in seen]
    return found


@router.get("/{model}", responses=errors(NotFound))
async def get_model(model: str, project_id: ProjectDep, database: DatabaseDep) -> Model:
    async with database.reading() as session:
        named = await find(session, project_id, model)
        job, step = named.job, named.step
        if named.side is Side.BASE and not _is_served(await deployments.find(session, job, step)):
            raise NotFound(f"The base of {job.id} is not served. GET /v1/models lists the models that there are.")
        if not is_id("job", model_of(model)[0]):
            held, past = await promotions.history(session, project_id, model)
            current = next(one for one in past if one.id == held.current_id)
            return _model(held.name, job, current.became_current_at or current.created_at)
        if step is not None:
            export = await exports.get(session, job, step)
            return _model(model_name(job.id, named.side, step), job, export.updated_at)
    return _published(job, named.side)


@router.delete("/{model}", responses=errors(NotFound, InvalidState))
async def delete_model(
    model: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> ModelDeleted:
    """Delete the model and its files; refused while it is deployed, or a job or another model needs it. Of a name, only
    the name: the model that it means stays, and so does the name's history."""
    job_id, step, side = model_of(model)
    if not is_id("job", job_id):
        async with database.transaction() as session:
            await find(session, project_id, model)
            await promotions.remove(session, project_id, model)
    elif side is Side.BASE:
        raise InvalidState("The base is not the job's to delete: it is gone when the job's models are taken down.")
    elif step is not None:
        await exports.delete_model(database, settings, project_id, job_id, step)
    else:
        await published.delete(database, settings, project_id, job_id)
    return ModelDeleted(id=model)


def _published(job: Job, side: Side) -> Model:
    assert job.finished_at is not None
    return _model(model_name(job.id, side), job, job.finished_at)


def _model(id: str, job: Job, created: datetime) -> Model:
    return Model(
        id=id,
        created=seconds(created),
        owned_by=job.project_id,
        base=job.spec["model"]["source"],
        name=job.spec.get("name"),
    )


def _is_served(deployment: Deployment | None) -> bool:
    return deployment is not None and deployment.state in _ANSWERING
