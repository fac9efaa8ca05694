"""The models that jobs published: listed, and deleted when nothing is built on them."""

import asyncio
import shutil
from collections.abc import Sequence

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.errors import InvalidState, NotFound
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import LIVE, JobState
from service.settings import Settings
from service.spec import Storage


async def all_of(session: AsyncSession, project_id: str) -> Sequence[Job]:
    """The jobs of the project whose models are there, newest first."""
    return (
        await session.scalars(select(Job).where(Job.project_id == project_id, _there()).order_by(Job.id.desc()))
    ).all()


async def get(session: AsyncSession, project_id: str, job_id: str, *, lock: bool = False) -> Job:
    """The job, if its model is there; NotFound otherwise."""
    job = await JobRepository(session).get_in_project(job_id, project_id, lock=lock)
    if job.state is not JobState.SUCCEEDED or job.model_deleted_at is not None:
        raise NotFound(f"{job.id} has no model. GET /v1/models lists those that there are.")
    return job


async def delete(database: Database, settings: Settings, project_id: str, job_id: str) -> None:
    """Delete the job's model: from the commit on nothing may use it, then its directory goes.

    What a crash leaves of that, `finish_deletions` removes. Raises NotFound, and InvalidState while the model is
    deployed, a job that has not ended needs it, or a model that is kept was trained from it.
    """
    async with database.transaction() as session:
        job = await get(session, project_id, job_id, lock=True)
        await require_unused(session, job)
        job.model_deleted_at = utc_now()
        await session.flush()
        await append_event(session, job, "model.deleted", "The published model was deleted.")
        await audit.record(session, job.id)
    await _remove(settings, job.id)


async def require_unused(session: AsyncSession, job: Job) -> None:
    """Raises InvalidState while the job's model is deployed, or another job needs it."""
    if await deployments.find(session, job) is not None:
        raise InvalidState(f"The model is deployed: DELETE /v1/jobs/{job.id}/deployment takes it down first.")
    if user := await _user_of(session, job):
        what = "was trained from it" if user.state is JobState.SUCCEEDED else f"is {user.state} and needs it"
        raise InvalidState(f"{user.id} {what}: delete the model of that job, or cancel it, first.", job_id=user.id)


async def finish_deletions(database: Database, settings: Settings) -> None:
    """Remove what is left of deleted models."""
    async with database.reading() as session:
        deleted = (await session.scalars(select(Job.id).where(Job.model_deleted_at.is_not(None)))).all()
    for job_id in deleted:
        await _remove(settings, job_id)


async def _remove(settings: Settings, job_id: str) -> None:
    directory = Storage(settings.storage_root).model(job_id)
    if await asyncio.to_thread(directory.exists):
        await asyncio.to_thread(shutil.rmtree, directory)


async def _user_of(session: AsyncSession, job: Job) -> Job | None:
    """A job that needs the model: one that has not ended, or one whose own model is served beside it as its base."""
    name = f"job:{job.id}"
    starts_from = Job.spec["model"]["source"].as_string() == name
    takes = or_(starts_from, Job.spec["reference"]["source"].as_string() == name)
    needs = or_(Job.state.in_(LIVE) & takes, _there() & starts_from)
    users = select(Job).where(Job.project_id == job.project_id, needs).order_by(Job.id.desc())
    return (await session.scalars(users.limit(1))).one_or_none()


def _there() -> ColumnElement[bool]:
    return (Job.state == JobState.SUCCEEDED) & Job.model_deleted_at.is_(None)
