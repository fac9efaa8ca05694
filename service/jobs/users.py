"""What needs a model that a job made: its deployment, jobs that have not ended, models that were trained from it."""

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import Job
from service.deployments import service as deployments
from service.errors import InvalidState
from service.jobs.states import LIVE, JobState


async def require_none(session: AsyncSession, job: Job, step: int | None = None) -> None:
    """Raises InvalidState while the model is deployed, or another job needs it. step: of an exported checkpoint."""
    if await deployments.find(session, job, step) is not None:
        raise InvalidState(f"The model is deployed: DELETE {deployments.route(job.id, step)} takes it down first.")
    if user := await _user_of(session, job, step):
        what = "was trained from it" if user.state is JobState.SUCCEEDED else f"is {user.state} and needs it"
        raise InvalidState(f"{user.id} {what}: delete the model of that job, or cancel it, first.", job_id=user.id)


async def _user_of(session: AsyncSession, job: Job, step: int | None) -> Job | None:
    """A job that needs the model: one that has not ended, or one whose own model is served beside it as its base."""
    name = f"job:{deployments.deployment_id(job.id, step)}"
    starts_from = Job.spec["model"]["source"].as_string() == name
    takes = or_(starts_from, Job.spec["reference"]["source"].as_string() == name)
    needs = or_(Job.state.in_(LIVE) & takes, is_there() & starts_from)
    users = select(Job).where(Job.project_id == job.project_id, needs).order_by(Job.id.desc())
    return (await session.scalars(users.limit(1))).one_or_none()


def is_there() -> ColumnElement[bool]:
    """Whether the model that a job published is there."""
    return (Job.state == JobState.SUCCEEDED) & Job.model_deleted_at.is_(None)
