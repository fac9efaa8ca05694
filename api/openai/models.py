"""`/v1/models`, as OpenAI's package calls it: the models that your jobs published, and the bases served beside them."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.openai.errors import errors
from api.openai.objects import seconds
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.errors import InvalidState, NotFound
from service.jobs import published
from service.jobs.states import DeploymentState
from service.serving.models import Side, model_name, model_of

router = APIRouter(prefix="/models", tags=["OpenAI"])


class Model(BaseModel):
    id: str = Field(examples=["job:job-019316f0a6b2f3c1d4e5a"])
    object: Literal["model"] = "model"
    created: int = Field(description="When the job succeeded, in seconds since 1970.")
    owned_by: str
    base: str = Field(description="The model that the job started from.")
    name: str | None = Field(description="The job's name.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


@router.get("", responses=errors())
async def list_models(project_id: ProjectDep, database: DatabaseDep) -> ModelList:
    """Newest first. A model that jobs only start from is listed while it is served beside what a job made of it."""
    async with database.reading() as session:
        jobs = await published.all_of(session, project_id)
        deployed = await deployments.find_many(session, [job.id for job in jobs])
    data = []
    for job in jobs:
        data.append(_model(job, Side.ALIGNED))
        if _is_served(deployed.get(job.id)):
            data.append(_model(job, Side.BASE))
    return ModelList(data=data)


@router.get("/{model}", responses=errors(NotFound))
async def get_model(model: str, project_id: ProjectDep, database: DatabaseDep) -> Model:
    job_id, side = model_of(model)
    async with database.reading() as session:
        job = await published.get(session, project_id, job_id)
        if side is Side.BASE and not _is_served(await deployments.find(session, job)):
            raise NotFound(f"The base of {job.id} is not served. GET /v1/models lists the models that there are.")
    return _model(job, side)


@router.delete("/{model}", responses=errors(NotFound, InvalidState))
async def delete_model(
    model: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> ModelDeleted:
    """Delete the model and its files; refused while it is deployed, or a job or another model needs it."""
    job_id, side = model_of(model)
    if side is Side.BASE:
        raise InvalidState("The base is not the job's to delete: it is gone when the job's models are taken down.")
    await published.delete(database, settings, project_id, job_id)
    return ModelDeleted(id=model)


def _model(job: Job, side: Side) -> Model:
    assert job.finished_at is not None
    return Model(
        id=model_name(job.id, side),
        created=seconds(job.finished_at),
        owned_by=job.project_id,
        base=job.spec["model"]["source"],
        name=job.spec.get("name"),
    )


def _is_served(deployment: Deployment | None) -> bool:
    return deployment is not None and deployment.state is DeploymentState.READY
