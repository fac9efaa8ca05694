"""Projects: your own with what it uses, and for operators all of them with their quotas."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.deps import AdminDep, CallerDep, DatabaseDep, OperatorDep, PageCursor, PageLimit, SettingsDep
from api.problems import problems
from service.db.tenant_tables import Project
from service.errors import Forbidden, InvalidRequest, InvalidState, NotFound
from service.keys.roles import Role
from service.keys.service import Caller
from service.projects import service as projects
from service.projects import usage
from service.projects.quota import Quota, Usage
from service.retention.policy import Retention, of_project, require_shorter

router = APIRouter(prefix="/projects", tags=["projects"])


class ProjectView(BaseModel):
    id: str
    object: Literal["project"] = "project"
    quota: Quota
    retention: Retention = Field(description="What is set for the project; null is as the operator has it for all.")
    created_at: datetime

    @classmethod
    def of(cls, project: Project) -> "ProjectView":
        return cls(
            id=project.id,
            quota=Quota.model_validate(project.quota),
            retention=of_project(project),
            created_at=project.created_at,
        )


class ProjectDetail(ProjectView):
    usage: Usage
    retention_in_force: Retention


class ProjectList(BaseModel):
    data: list[ProjectView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


class NewProject(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, StringConstraints(pattern=f"^{projects.PROJECT_ID}$")]
    quota: Quota = Field(default_factory=Quota)


class ProjectChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    quota: Quota = Field(Quota(), description="Limits to change; null lifts one, and what is left out stays.")
    retention: Retention = Field(
        Retention(), description="Days to change; null is the operator's again, and what is left out stays."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> "ProjectChange":
        if not self.model_fields_set:
            raise ValueError("give `quota`, `retention` or both")
        return self


@router.get("", responses=problems(InvalidRequest))
async def list_projects(
    caller: CallerDep, database: DatabaseDep, limit: PageLimit = 100, cursor: PageCursor = None
) -> ProjectList:
    """Your key's project; for an operator all of them."""
    async with database.reading() as session:
        if caller.role is Role.OPERATOR:
            found, next_cursor = await projects.page(session, limit=limit, cursor=cursor)
        else:
            found, next_cursor = [await projects.get(session, caller.project_id)], None
    return ProjectList(data=[ProjectView.of(project) for project in found], next_cursor=next_cursor)


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
        used = await usage.usage(session, project_id)
        return ProjectDetail(**view.model_dump(), usage=used, retention_in_force=view.retention.in_force(settings))


@router.patch("/{project_id}", responses=problems(NotFound, Forbidden))
async def change_project(
    project_id: str, change: ProjectChange, caller: AdminDep, database: DatabaseDep, settings: SettingsDep
) -> ProjectView:
    """Quotas are for operators. A lower limit ends nothing: it is there for what is asked from now on. Retention is for
    admins too, as far as less is kept than the operator has set for all; what is too old then goes at the next look."""
    _require_visible(caller, project_id)
    if caller.role is not Role.OPERATOR:
        if "quota" in change.model_fields_set:
            raise Forbidden("Quotas are set by an operator: ask one.")
        require_shorter(change.retention, settings)
    async with database.transaction() as session:
        project = await projects.get(session, project_id)
        if "quota" in change.model_fields_set:
            project = await projects.set_quota(session, project_id, change.quota)
        if "retention" in change.model_fields_set:
            project = await projects.set_retention(session, project_id, change.retention)
        return ProjectView.of(project)


def _require_visible(caller: Caller, project_id: str) -> None:
    if project_id != caller.project_id and caller.role is not Role.OPERATOR:
        raise NotFound("There is no such project among yours. GET /v1/projects lists them.")
