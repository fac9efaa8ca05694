"""Working files of finished jobs: checkpoints, prepared rows, fetched data.

They are renamed out of the job's way while its row is locked, so that a job that is taken up again at that moment
either keeps all of them or finds none; then they are deleted, by this sweep or the next one.
"""

import asyncio
import secrets
import shutil
from datetime import datetime

from sqlalchemy import or_, select

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job
from service.jobs.repository import append_event
from service.jobs.states import TERMINAL
from service.retention.policy import EVERY_PROJECT, Scope
from service.settings import Settings
from service.spec import Storage

MAX_JOBS = 50  # of one sweep


async def sweep(database: Database, settings: Settings, before: datetime, scope: Scope = EVERY_PROJECT) -> int:
    """Remove what jobs that finished before `before` have left; returns of how many jobs there was something."""
    storage = Storage(settings.storage_root)
    # they may have run again since
    left = or_(Job.run_removed_at.is_(None), Job.run_removed_at < Job.finished_at)
    finished = select(Job.id).where(Job.state.in_(TERMINAL), Job.finished_at < before, left)
    finished = finished.where(scope.holds(Job.project_id))
    async with database.reading() as session:
        job_ids = (await session.scalars(finished.order_by(Job.finished_at).limit(MAX_JOBS))).all()
    removed = 0
    for job_id in job_ids:
        removed += await _set_aside(database, storage, job_id, before)
    await asyncio.to_thread(_delete_set_aside, storage)
    return removed


async def _set_aside(database: Database, storage: Storage, job_id: str, before: datetime) -> bool:
    async with database.transaction() as session:
        job = await session.get(Job, job_id, with_for_update=True, populate_existing=True)
        if job is None or not job.state.terminal or job.finished_at is None or job.finished_at >= before:
            return False  # deleted, or it goes on
        job.run_removed_at = utc_now()
        await session.flush()
        if not await asyncio.to_thread(_rename, storage, job_id):
            return False
        await append_event(
            session, job, "run.removed", "Checkpoints, prepared rows and fetched data were removed by retention."
        )
        return True


def _rename(storage: Storage, job_id: str) -> bool:
    storage.removed_runs.mkdir(parents=True, exist_ok=True)
    try:
        storage.run(job_id).rename(storage.removed_runs / f"{job_id}.{secrets.token_hex(4)}")
    except FileNotFoundError:
        return False
    return True


def _delete_set_aside(storage: Storage) -> None:
    for directory in storage.removed_runs.glob("*"):
        shutil.rmtree(directory, ignore_errors=True)  # another controller may be at it; the next sweep tries again
