"""`/v1/models`, as OpenAI's package calls it: the models that your jobs published."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.openai.errors import errors
from api.openai.objects import model_name, seconds
from service.db.tables import Job
from service.errors import InvalidState, NotFound
from service.jobs import published

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
    """Newest first. Models that jobs only start from are not listed: they are not kept here."""
    async with database.reading() as session:
        return ModelList(data=[_model(job) for job in await published.all_of(session, project_id)])


@router.get("/{model}", responses=errors(NotFound))
async def get_model(model: str, project_id: ProjectDep, database: DatabaseDep) -> Model:
    async with database.reading() as session:
        return _model(await published.get(session, project_id, _job_id(model)))


@router.delete("/{model}", responses=errors(NotFound, InvalidState))
async def delete_model(
    model: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> ModelDeleted:
    """Delete the model and its files; refused while it is deployed, or a job or another model needs it."""
    await published.delete(database, settings, project_id, _job_id(model))
    return ModelDeleted(id=model)


def _model(job: Job) -> Model:
    assert job.finished_at is not None
    return Model(
        id=model_name(job.id),
        created=seconds(job.finished_at),
        owned_by=job.project_id,
        base=job.spec["model"]["source"],
        name=job.spec.get("name"),
    )


def _job_id(model: str) -> str:
    return model.removeprefix(model_name(""))
