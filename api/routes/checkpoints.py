"""A job's checkpoints: listed, made into models, and those models served, while training runs and after."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.problems import problems
from api.serving_views import CheckpointEntry, CheckpointPage, ExportDeleted, ExportView
from api.views import DeploymentView
from service.deployments import service as deployments
from service.errors import InvalidState, ModelUnusable, NotFound, QuotaExceeded
from service.exports import service as exports
from service.jobs import checkpoints
from service.jobs.model_admission import check_servable
from service.jobs.repository import JobRepository

router = APIRouter(prefix="/jobs/{job_id}/checkpoints", tags=["serving"])

Step = Annotated[int, Path(ge=1, le=999_999_999, description="After which the checkpoint was saved.")]


@router.get("", tags=["jobs"], responses=problems(NotFound))
async def list_checkpoints(
    job_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> CheckpointPage:
    """What the job could go on from, and what was made into models, by step. The newest `training.checkpoints_to_keep`
    are there until the job has succeeded; exported ones stay."""
    async with database.reading() as session:
        found = await checkpoints.all_of(session, settings, project_id, job_id)
        made = {export.step: export for export in await exports.of_job(session, job_id)}
        gone = set(made) - {one.step for one in found}
        found += await checkpoints.exported(session, job_id, [made[step] for step in sorted(gone)])
    return CheckpointPage(
        data=[
            CheckpointEntry(
                step=one.step,
                saved_at=one.saved_at,
                bytes=one.bytes,
                metrics=one.metrics,
                resumable=one.step not in gone,
                export=ExportView.of(made[one.step]) if one.step in made else None,
            )
            for one in sorted(found, key=lambda one: one.step)
        ]
    )


@router.post("/{step}/export", status_code=202, responses=problems(NotFound, InvalidState, QuotaExceeded))
async def export_checkpoint(
    job_id: str, step: Step, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> ExportView:
    """Make a model of the checkpoint, `job:ID@STEP`, which can be deployed, compared, promoted and trained from. The
    checkpoint is kept for it from now on. Asking again is harmless, and after a failure tries again."""
    return ExportView.of(await exports.request(database, settings, project_id, job_id, step))


@router.get("/{step}/export", responses=problems(NotFound))
async def get_export(job_id: str, step: Step, project_id: ProjectDep, database: DatabaseDep) -> ExportView:
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return ExportView.of(await exports.get(session, job, step))


@router.delete("/{step}/export", responses=problems(NotFound, InvalidState))
async def delete_export(
    job_id: str, step: Step, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> ExportDeleted:
    """Delete the model that was made of the checkpoint; refused while it is being made, deployed, or needed by a job or
    another model. What the job itself can go on from stays."""
    await exports.delete_model(database, settings, project_id, job_id, step)
    return ExportDeleted(job_id=job_id, step=step)


@router.post("/{step}/deployment", status_code=202, responses=problems(NotFound, InvalidState, ModelUnusable))
async def deploy_checkpoint(
    job_id: str, step: Step, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> DeploymentView:
    """Ask for the exported checkpoint to be served beside its base, as POST .../deployment does for what the job
    published."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        await deployments.require_model(session, job, step)
    await check_servable(database, settings, job, step)
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return DeploymentView.model_validate(await deployments.want(session, job, step))


@router.get("/{step}/deployment", responses=problems(NotFound))
async def get_checkpoint_deployment(
    job_id: str, step: Step, project_id: ProjectDep, database: DatabaseDep
) -> DeploymentView:
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return DeploymentView.model_validate(await deployments.get(session, job, step))


@router.delete("/{step}/deployment", status_code=202, responses=problems(NotFound, InvalidState))
async def undeploy_checkpoint(job_id: str, step: Step, project_id: ProjectDep, database: DatabaseDep) -> DeploymentView:
    """Ask for the models to be taken down; refused while a name means the checkpoint."""
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        return DeploymentView.model_validate(await deployments.unwant(session, job, step))
