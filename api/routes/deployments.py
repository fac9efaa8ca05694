"""A job's base and aligned model on Ray Serve: put up, look at, take down."""

from fastapi import APIRouter

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.problems import problems
from api.views import DeploymentView
from service.deployments import service as deployments
from service.errors import InvalidState, ModelUnusable, NotFound
from service.jobs.model_admission import check_servable
from service.jobs.repository import JobRepository
from service.jobs.states import JobState

router = APIRouter(prefix="/jobs/{job_id}/deployment", tags=["serving"])


@router.post("", status_code=202, responses=problems(NotFound, InvalidState, ModelUnusable))
async def deploy(job_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep) -> DeploymentView:
    """Ask for both models to be served. Asking again is harmless, and after a failure tries again."""
    async with database.reading() as session:
        found = await JobRepository(session).get_in_project(job_id, project_id)
    if found.state is JobState.SUCCEEDED:
        await check_servable(database, settings, found)
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return DeploymentView.model_validate(await deployments.want(session, job))


@router.get("", responses=problems(NotFound))
async def get_deployment(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> DeploymentView:
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return DeploymentView.model_validate(await deployments.get(session, job))


@router.delete("", status_code=202, responses=problems(NotFound))
async def undeploy(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> DeploymentView:
    """Ask for both models to be taken down; the deployment is gone when Serve has let go."""
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return DeploymentView.model_validate(await deployments.unwant(session, job))
