"""What projects use, counted in the transaction that asks; and the checks that hold when two ask at once.

GPU-hours are the time from each attempt's lease to its end, as far as it lies in the month, times the GPUs that its job
may hold: what was kept from others, whether it was used or not.
"""

import asyncio
import math
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Attempt, File, Job
from service.db.tenant_tables import Project
from service.jobs.repository import ON_CLUSTER
from service.jobs.states import LIVE, JobState
from service.projects.quota import Quota, Shortage, Usage, never_fits
from service.settings import Settings
from service.spec import Storage


async def usage(session: AsyncSession, project_id: str) -> Usage:
    return Usage(
        live_jobs=await _count(session, project_id, Job.state.in_(LIVE)),
        running_jobs=await _count(session, project_id, Job.state.in_(ON_CLUSTER)),
        gpus=await _gpus_on_cluster(session, project_id),
        gpu_hours_month=await gpu_hours(session, project_id, utc_now()),
        storage_bytes=await _storage_bytes(session, project_id),
    )


async def hold_for_job(session: AsyncSession, project_id: str, gpus: float) -> None:
    """For the transaction that adds a job which may hold `gpus` GPUs. Raises QuotaExceeded.

    Others that ask for the same project wait for this transaction, so of two that fit singly one is refused.
    """
    quota = await _held_quota(session, project_id)
    if quota != Quota() and (shortage := never_fits(quota, await usage(session, project_id), gpus)):
        raise shortage.error()


async def hold_for_bytes(session: AsyncSession, project_id: str, num_bytes: int) -> None:
    """For the transaction that adds a file. Raises QuotaExceeded; holds as `hold_for_job` does."""
    limit = (await _held_quota(session, project_id)).max_storage_bytes
    if limit is None:
        return
    used = await _storage_bytes(session, project_id)
    if used + num_bytes > limit:
        raise Shortage("max_storage_bytes", used, num_bytes, limit).error()


async def quota_of(session: AsyncSession, project_id: str) -> Quota:
    """No limits for a project that has no row: one that was made before there were any."""
    project = await session.get(Project, project_id)
    return Quota.model_validate(project.quota) if project is not None else Quota()


async def measure_models(database: Database, settings: Settings, project_id: str, *, limited: bool = True) -> None:
    """Write down how large the project's models are, for those of which that is not known yet.

    Call it before usage is counted, with no transaction open: it walks their directories.
    limited: only if the project has a limit that they count for.
    """
    unknown = select(Job.id).where(Job.project_id == project_id, _has_model(), Job.model_bytes.is_(None))
    async with database.reading() as session:
        if limited and (await quota_of(session, project_id)).max_storage_bytes is None:
            return
        job_ids = (await session.scalars(unknown)).all()
    for job_id in job_ids:
        size = await asyncio.to_thread(_size, Storage(settings.storage_root).model(job_id))
        async with database.transaction() as session:
            await session.execute(update(Job).where(Job.id == job_id).values(model_bytes=size))


async def _held_quota(session: AsyncSession, project_id: str) -> Quota:
    quota = await quota_of(session, project_id)
    if quota == Quota():  # nothing to hold, and projects without limits should not wait for themselves
        return quota
    locked = select(Project).where(Project.id == project_id).with_for_update()
    project = (await session.scalars(locked.execution_options(populate_existing=True))).one()
    return Quota.model_validate(project.quota)


async def _count(session: AsyncSession, project_id: str, which: ColumnElement[bool]) -> int:
    count = select(func.count()).select_from(Job).where(Job.project_id == project_id, which)
    return (await session.scalars(count)).one()


async def _gpus_on_cluster(session: AsyncSession, project_id: str) -> float:
    held = select(func.sum(Job.gpus))
    return (await session.scalars(held.where(Job.project_id == project_id, Job.state.in_(ON_CLUSTER)))).one() or 0.0


async def gpu_hours(session: AsyncSession, project_id: str, now: datetime) -> float:
    """Of the calendar month that `now` is in."""
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    attempts = (
        select(Attempt.created_at, Attempt.finished_at, Job.gpus)
        .join(Job, Job.id == Attempt.job_id)
        .where(
            Job.project_id == project_id,
            Job.gpus > 0,
            or_(Attempt.finished_at.is_(None), Attempt.finished_at > month),
        )
    )
    return math.fsum(
        ((finished or now) - max(began, month)).total_seconds() / 3600 * (gpus or 0.0)
        for began, finished, gpus in await session.execute(attempts)
    )


async def _storage_bytes(session: AsyncSession, project_id: str) -> int:
    files = select(func.sum(File.bytes)).where(File.project_id == project_id, File.deleted_at.is_(None))
    models = select(func.sum(Job.model_bytes)).where(Job.project_id == project_id, _has_model())
    # PostgreSQL adds up to a Decimal, and nothing to null
    return sum([int((await session.scalars(total)).one() or 0) for total in (files, models)])


def _has_model() -> ColumnElement[bool]:
    return (Job.state == JobState.SUCCEEDED) & Job.model_deleted_at.is_(None)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
