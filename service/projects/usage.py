"""What projects use, counted in the transaction that asks; and the checks that hold when two ask at once.

GPU-hours are the time from each attempt's lease to its end, as far as it lies in the month, times the GPUs that its job
may hold: what was kept from others, whether it was used or not.
"""

import asyncio
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.db.tables import Attempt, Deployment, File, Job, Upload, UploadPart
from service.db.tenant_tables import Project
from service.jobs.repository import ON_CLUSTER
from service.jobs.states import LIVE, DeploymentState, JobState
from service.projects.quota import Quota, Shortage, Usage, never_fits, no_engine
from service.settings import Settings
from service.spec import Storage
from service.uploads.repository import is_pending

_ON_SERVE = (DeploymentState.DEPLOYING, DeploymentState.READY, DeploymentState.REMOVING)
_projects = Project.__table__.c
_QUOTA = select(_projects.quota).where(_projects.id == bindparam("project_id"))


async def usage(session: AsyncSession, project_id: str) -> Usage:
    return Usage(
        live_jobs=await _count(session, project_id, Job.state.in_(LIVE)),
        running_jobs=await _count(session, project_id, Job.state.in_(ON_CLUSTER)),
        gpus=await _gpus_on_cluster(session, project_id) + await gpus_served(session, project_id),
        gpu_hours_month=await gpu_hours(session, project_id, utc_now()),
        storage_bytes=await _storage_bytes(session, project_id),
    )


async def hold_for_job(session: AsyncSession, project_id: str, gpus: float) -> None:
    """For the transaction that adds a job which may hold `gpus` GPUs. Raises QuotaExceeded.

    Others that ask for the same project wait for this transaction, so of two that fit singly one is refused.
    """
    quota = await hold_quota(session, project_id)
    if quota != Quota() and (shortage := never_fits(quota, await usage(session, project_id), gpus)):
        raise shortage.error()


async def hold_for_engines(session: AsyncSession, project_id: str, engines: Mapping[str, float]) -> Shortage | None:
    """For the transaction that places models on `engines`, whose GPUs are by name; those that run already ask for
    nothing more. Returns why they cannot start now. Raises QuotaExceeded if they never can."""
    quota = await hold_quota(session, project_id)
    if quota.max_gpus is None:
        return None
    if never := no_engine(quota, 0.0, sum(engines.values())):
        raise never.error()
    held = await _engines(session, project_id)
    used = await _gpus_on_cluster(session, project_id) + sum(held.values())
    return no_engine(quota, used, sum(gpus for name, gpus in engines.items() if name not in held))


async def hold_for_bytes(session: AsyncSession, project_id: str, num_bytes: int) -> None:
    """For the transaction that adds a file. Raises QuotaExceeded; holds as `hold_for_job` does."""
    limit = (await hold_quota(session, project_id)).max_storage_bytes
    if limit is None:
        return
    used = await _storage_bytes(session, project_id)
    if used + num_bytes > limit:
        raise Shortage("max_storage_bytes", used, num_bytes, limit).error()


async def quota_of(session: AsyncSession, project_id: str) -> Quota:
    """No limits for a project that has no row: one that was made before there were any."""
    found = (await session.execute(_QUOTA, {"project_id": project_id})).scalar_one_or_none()
    return Quota.model_validate(found) if found else Quota()


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


async def hold_quota(session: AsyncSession, project_id: str) -> Quota:
    """The limits, which others that ask for the same project get after this transaction."""
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


async def gpus_served(session: AsyncSession, project_id: str) -> float:
    """Of the engines that models are placed on, also while those come up."""
    return sum((await _engines(session, project_id)).values())


async def _engines(session: AsyncSession, project_id: str) -> dict[str, float]:
    """GPUs by engine's name."""
    placed = select(Deployment.places).join(Job, Job.id == Deployment.job_id).where(Job.project_id == project_id)
    rows = await session.scalars(placed.where(Deployment.state.in_(_ON_SERVE)))
    return {place["engine"]: place.get("gpus", 0.0) for places in rows if places for place in places.values()}


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
    parts = select(func.sum(UploadPart.bytes)).join(Upload, Upload.id == UploadPart.upload_id)
    parts = parts.where(Upload.project_id == project_id, is_pending(utc_now()))
    models = select(func.sum(Job.model_bytes)).where(Job.project_id == project_id, _has_model())
    exported = (
        select(func.sum(CheckpointExport.bytes))
        .join(Job, Job.id == CheckpointExport.job_id)
        .where(Job.project_id == project_id, CheckpointExport.deleted_at.is_(None))
    )
    # PostgreSQL adds up to a Decimal, and nothing to null
    return sum([int((await session.scalars(total)).one() or 0) for total in (files, parts, models, exported)])


def _has_model() -> ColumnElement[bool]:
    return (Job.state == JobState.SUCCEEDED) & Job.model_deleted_at.is_(None)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
