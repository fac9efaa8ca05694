"""Jobs deleted with all that they made.

What stays is the row itself, which no one sees any more: so the ID and the Idempotency-Key are not used again, and the
GPU-hours stay counted.
"""

import asyncio
import shutil
from pathlib import Path

from sqlalchemy import delete as sql_delete
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.session import Database
from service.db.tables import Event, Job, Metric
from service.errors import InvalidState, NotFound
from service.jobs import published
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import Storage


async def delete(database: Database, settings: Settings, project_id: str, job_id: str) -> None:
    """Delete an ended job: from the commit on no one sees it, then its model, checkpoints and working files go, then
    its events and metrics. What a crash leaves of that, `finish_deletions` removes.

    Idempotent. Raises NotFound, and InvalidState while the job has not ended, its model is deployed, or another job
    needs the model.
    """
    async with database.transaction() as session:
        if await _is_deleted(session, project_id, job_id):
            return
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        if not job.state.terminal:
            raise InvalidState(f"The job is {job.state}: cancel it first.", state=job.state)
        if job.state is JobState.SUCCEEDED and job.model_deleted_at is None:
            await published.require_unused(session, job)
        now = utc_now()
        await guarded_update(session, job, {"deleted_at": now, "model_deleted_at": job.model_deleted_at or now})
        await audit.record(session, job.id)
    await _purge(database, settings, job)


async def finish_deletions(database: Database, settings: Settings) -> None:
    """Remove what is left of deleted jobs. Safe to run twice at once."""
    async with database.reading() as session:
        left = (await session.scalars(select(Job).where(Job.deleted_at.is_not(None), Job.purged_at.is_(None)))).all()
    for job in left:
        await _purge(database, settings, job)


async def _purge(database: Database, settings: Settings, job: Job) -> None:
    storage = Storage(settings.storage_root)
    for directory in (storage.model(job.id), storage.run(job.id)):
        await asyncio.to_thread(_remove, directory)
    async with database.transaction() as session:
        for table in (Event, Metric):
            gone = sql_delete(table).where(table.job_id == job.id)
            await session.execute(gone, execution_options={"synchronize_session": False})
        await guarded_update(session, job, {"purged_at": utc_now()})


async def _is_deleted(session: AsyncSession, project_id: str, job_id: str) -> bool:
    try:
        job = await JobRepository(session).get(job_id)
    except NotFound:
        return False
    return job.project_id == project_id and job.deleted_at is not None


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:  # never made, or somebody else removes it too
        if directory.exists():
            _remove(directory)
