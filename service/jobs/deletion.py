"""Jobs deleted with all that they made.

What stays is the row itself, which no one sees any more: so the ID and the Idempotency-Key are not used again, and the
GPU-hours stay counted.
"""

import asyncio

from sqlalchemy import delete as sql_delete
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.archive.exported import remove_archive
from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.pair_tables import PairFlag
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.db.tables import Event, Job, JobLabel, Metric
from service.errors import InvalidState, NotFound
from service.exports import service as exports
from service.files import service as files
from service.jobs import published, users
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
            await users.require_none(session, job)
        for export in await exports.of_job(session, job.id):
            await exports.require_unused(session, job, export)
        now = utc_now()
        await guarded_update(session, job, {"deleted_at": now, "model_deleted_at": job.model_deleted_at or now})
        await audit.record(session, job.id)
    await _purge(database, settings, job)


async def finish_deletions(database: Database, settings: Settings) -> None:
    """Remove what is left of deleted files, models and jobs. Safe to run twice at once. Raises Unavailable."""
    await files.finish_deletions(database, settings)
    await published.finish_deletions(database, settings)
    await _finish_jobs(database, settings)


async def _finish_jobs(database: Database, settings: Settings) -> None:
    """Remove what is left of deleted jobs. Safe to run twice at once. Raises Unavailable."""
    async with database.reading() as session:
        left = (await session.scalars(select(Job).where(Job.deleted_at.is_not(None), Job.purged_at.is_(None)))).all()
    for job in left:
        await _purge(database, settings, job)


async def _purge(database: Database, settings: Settings, job: Job) -> None:
    storage = Storage(settings.storage_root)
    await published.remove_files(settings, job)
    async with database.reading() as session:
        exported = (await session.scalars(select(CheckpointExport).where(CheckpointExport.job_id == job.id))).all()
    for export in exported:
        await remove_archive(settings, export)
    for directory in (storage.exported(job.id), storage.run(job.id)):
        await asyncio.to_thread(published.remove_directory, directory)
    async with database.transaction() as session:
        for table in (Event, Metric, JobLabel, PairFlag, CheckpointExport):
            gone = sql_delete(table).where(table.job_id == job.id)
            await session.execute(gone, execution_options={"synchronize_session": False})
        now = utc_now()
        await guarded_update(session, job, {"purged_at": now, "model_purged_at": now})


async def _is_deleted(session: AsyncSession, project_id: str, job_id: str) -> bool:
    try:
        job = await JobRepository(session).get(job_id)
    except NotFound:
        return False
    return job.project_id == project_id and job.deleted_at is not None
