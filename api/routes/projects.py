"""Projects: your own with what it uses, and for operators all of them with their quotas."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.deps import CallerDep, DatabaseDep, OperatorDep, SettingsDep
from api.problems import problems
from service.db.tenant_tables import Project
from service.errors import Forbidden, InvalidState, NotFound
from service.keys.roles import Role
from service.keys.service import Caller
from service.projects import service as projects
from service.projects import usage
from service.projects.quota import Quota, Usage

router = APIRouter(prefix="/projects", tags=["projects"])


class ProjectView(BaseModel):
    id: str
    object: Literal["project"] = "project"
    quota: Quota
    created_at: datetime

    @classmethod
    def of(cls, project: Project) -> "ProjectView":
        return cls(id=project.id, quota=Quota.model_validate(project.quota), created_at=project.created_at)


class ProjectDetail(ProjectView):
    usage: Usage


class ProjectList(BaseModel):
    data: list[ProjectView]


class NewProject(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, StringConstraints(pattern=f"^{projects.PROJECT_ID}$")]
    quota: Quota = Field(default_factory=Quota)


class ProjectChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    quota: Quota = Field(description="Limits to change; null lifts one, and what is left out stays.")


@router.get("")
async def list_projects(caller: CallerDep, database: DatabaseDep) -> ProjectList:
    """Your key's project; for an operator all of them."""
    async with database.reading() as session:
        if caller.role is Role.OPERATOR:
            found = await projects.all_projects(session)
        else:
            found = [await projects.get(session, caller.project_id)]
    return ProjectList(data=[ProjectView.of(project) for project in found])


@router.post("", status_code=201, responses=problems(Forbidden, InvalidState))
async def create_project(new: NewProject, _operator: OperatorDep, database: DatabaseDep) -> ProjectView:
    """For operators. Its first admin comes with `POST /v1/members?project=ID`."""
    async with database.transaction() as session:
        return ProjectView.of(await projects.create(session, new.id, new.quota))


@router.get("/{project_id}", responses=problems(NotFound))
async def get_project(
    project_id: str, caller: CallerDep, database: DatabaseDep, settings: SettingsDep
) -> ProjectDetail:
    """The project, its quota and what it uses."""
    _require_visible(caller, project_id)
    async with database.reading() as session:
        await projects.get(session, project_id)
    await usage.measure_models(database, settings, project_id, limited=False)
    async with database.reading() as session:
        view = ProjectView.of(await projects.get(session, project_id))
        return ProjectDetail(**view.model_dump(), usage=await usage.usage(session, project_id))


@router.patch("/{project_id}", responses=problems(NotFound, Forbidden))
async def change_project(
    project_id: str, change: ProjectChange, caller: CallerDep, database: DatabaseDep
) -> ProjectView:
    """For operators. A lower limit ends nothing: it is there for what is asked from now on."""
    _require_visible(caller, project_id)
    if caller.role is not Role.OPERATOR:
        raise Forbidden("Quotas are set by an operator: ask one.")
    async with database.transaction() as session:
        return ProjectView.of(await projects.set_quota(session, project_id, change.quota))


def _require_visible(caller: Caller, project_id: str) -> None:
    if project_id != caller.project_id and caller.role is not Role.OPERATOR:
        raise NotFound("There is no such project among yours. GET /v1/projects lists them.")
