"""The models that jobs published: listed, and deleted when nothing is built on them."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from service import audit
from service.archive import folder
from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.session import Database
from service.db.tables import Deployment, Job
from service.errors import NotFound
from service.jobs import users
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import DeploymentState, JobState
from service.settings import Settings
from service.spec import Storage


async def page(
    session: AsyncSession, project_id: str, *, limit: int, newest: str | None = None
) -> Sequence[tuple[Job, DeploymentState | None]]:
    """Jobs of the project whose models are there, newest first, and how those are deployed.

    newest: the ID of the first one to look at. Of a job only what a list of models shows is read.
    """
    shown = load_only(Job.project_id, Job.spec, Job.finished_at)
    found = select(Job, Deployment.state).options(shown).outerjoin(Deployment, Deployment.id == Job.id)
    found = found.where(Job.project_id == project_id, users.is_there())
    if newest is not None:
        found = found.where(Job.id <= newest)
    rows = await session.execute(found.order_by(Job.id.desc()).limit(limit))
    return [(job, state) for job, state in rows]


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
        await users.require_none(session, job)
        job.model_deleted_at = utc_now()
        await session.flush()
        await append_event(session, job, "model.deleted", "The published model was deleted.")
        await audit.record(session, job.id)
    await _purge(database, settings, job)


async def finish_deletions(database: Database, settings: Settings) -> None:
    """Remove what is left of deleted models. Safe to run twice at once. Raises Unavailable."""
    left = select(Job).where(Job.model_deleted_at.is_not(None), Job.model_purged_at.is_(None))
    async with database.reading() as session:
        deleted = (await session.scalars(left)).all()
    for job in deleted:
        await _purge(database, settings, job)


async def remove_files(settings: Settings, job: Job) -> None:
    """Of the model that the job published: on the storage, and in the object store also of one that it was being copied
    to. Idempotent. Raises Unavailable."""
    archives = {job.model_archive} if job.model_archive is not None else set()
    if settings.models_url is not None:
        archives.add(folder.address(settings.models_url, job.id))
    for archive in archives:
        await folder.remove(archive)
    await asyncio.to_thread(remove_directory, Storage(settings.storage_root).model(job.id))


def remove_directory(directory: Path) -> None:
    """Idempotent, also while somebody else removes it."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        if directory.exists():
            remove_directory(directory)


async def _purge(database: Database, settings: Settings, job: Job) -> None:
    await remove_files(settings, job)
    async with database.transaction() as session:
        await guarded_update(session, job, {"model_purged_at": utc_now()})
