"""Removes copies of models that nobody needs: on the storage by policy, and anywhere what was left of deleted ones."""

import asyncio
import shutil
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.archive import folder
from service.archive.exported import parsed
from service.archive.local import base_model, set_aside, used_since
from service.clock import utc_now
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.exports.service import UNDER_WAY
from service.files.bucket import bucket
from service.ids import is_id
from service.jobs.repository import JobRepository
from service.jobs.states import LIVE, ExportState
from service.settings import Settings
from service.spec import ModelRef, Storage

_STALE_S = 24 * 3600.0
_CHUNK = 500  # jobs of one query


async def sweep(database: Database, settings: Settings) -> int:
    """Returns how many copies were taken off the storage. Safe to run twice at once. Raises Unavailable."""
    storage = Storage(settings.storage_root)
    evicted = 0
    for job in await _jobs(database, await asyncio.to_thread(_names, storage.models)):
        if job.model_deleted_at is not None or await _outlived(settings, job.model_archive, storage.model(job.id)):
            evicted += await _evict(database, settings, job)
    for export in await _archived_exports(database, settings):
        if await _outlived(settings, export.archive, storage.model(export.job_id, export.step)):
            evicted += await _evict_export(database, settings, export)
    await asyncio.to_thread(_clear, storage)
    if settings.models_url is not None:
        await _clear_store(database, settings.models_url)
    return evicted


async def _jobs(database: Database, job_ids: Sequence[str], *which: ColumnElement[bool]) -> list[Job]:
    found: list[Job] = []
    for start in range(0, len(job_ids), _CHUNK):
        async with database.reading() as session:
            chosen = select(Job).where(Job.id.in_(job_ids[start : start + _CHUNK]), *which)
            found += (await session.scalars(chosen)).all()
    return found


async def _archived_exports(database: Database, settings: Settings) -> Sequence[CheckpointExport]:
    """None where copies on the storage are kept."""
    if settings.keep_model_copies_days is None:
        return []
    archived = CheckpointExport.archive.is_not(None), CheckpointExport.deleted_at.is_(None)
    async with database.reading() as session:
        return (await session.scalars(select(CheckpointExport).where(*archived))).all()


async def _outlived(settings: Settings, archive: str | None, path: Path) -> bool:
    """Whether the object store has the model, and the storage's copy has not been used for as long as is set."""
    if settings.keep_model_copies_days is None or archive is None:
        return False
    since_s = await asyncio.to_thread(used_since, path)
    return since_s is not None and since_s > settings.keep_model_copies_days * 86400


async def _evict(database: Database, settings: Settings, job: Job) -> bool:
    """Nothing that needs the model can come while its row is locked, and whatever comes later brings it back."""
    storage = Storage(settings.storage_root)
    async with database.transaction() as session:
        locked = select(Job).where(Job.id == job.id).with_for_update().execution_options(populate_existing=True)
        fresh = (await session.scalars(locked)).one()
        if fresh.model_deleted_at is None:
            is_read = await _is_read(session, storage, job.id)
            if is_read or not await _outlived(settings, fresh.model_archive, storage.model(job.id)):
                return False
        aside = await asyncio.to_thread(set_aside, storage, job.id)
    if aside is not None:
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
    return aside is not None


async def _evict_export(database: Database, settings: Settings, export: CheckpointExport) -> bool:
    """As `_evict`; an export that was deleted since is left to its deletion."""
    storage = Storage(settings.storage_root)
    key = export.job_id, export.step
    async with database.transaction() as session:
        await JobRepository(session).get(export.job_id, lock=True)
        fresh = await session.get_one(CheckpointExport, key, with_for_update=True, populate_existing=True)
        is_same = fresh.archive == export.archive and fresh.deleted_at is None
        if not is_same or await _is_read(session, storage, *key):
            return False
        if not await _outlived(settings, fresh.archive, storage.model(*key)):
            return False
        aside = await asyncio.to_thread(set_aside, storage, *key)
    if aside is not None:
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
    return aside is not None


async def _is_read(session: AsyncSession, storage: Storage, job_id: str, step: int | None = None) -> bool:
    deployed = deployments.deployment_id(job_id, step)
    if step is not None and await session.get(Deployment, deployed) is not None:
        return True
    users = (await session.scalars(select(Job).where(_may_read(job_id, step)))).all()
    return (job_id, step) in await asyncio.to_thread(_read_by, users, storage)


def _may_read(job_id: str, step: int | None) -> ColumnElement[bool]:
    """Jobs that have not ended, are deployed or have a checkpoint being exported, and name the model, are the model's
    own, or go on with some adapter."""
    exporting = select(CheckpointExport.job_id).where(CheckpointExport.state.in_(UNDER_WAY))
    at_work = or_(Job.state.in_(LIVE), Job.id.in_(select(Deployment.job_id)), Job.id.in_(exporting))
    name = f"job:{deployments.deployment_id(job_id, step)}"
    named = or_(
        Job.spec["model"]["source"].as_string() == name,
        Job.spec["reference"]["source"].as_string() == name,
        Job.spec["training"]["method"]["continue_adapter"].as_boolean().is_(True),
    )
    return at_work & (named | (Job.id == job_id) if step is None else named)


def _read_by(jobs: Iterable[Job], storage: Storage) -> set[tuple[str, int | None]]:
    """Models that these jobs read, by job and step: those they name, the weights under adapters, and for one that is
    deployed its own."""
    read: set[tuple[str, int | None]] = set()
    for job in jobs:
        refs = [ModelRef.model_validate(ref) for ref in (job.spec["model"], job.spec.get("reference")) if ref]
        models = {(ref.job_id, ref.step) for ref in refs if ref.job_id is not None}
        bases = {base for model in models if (base := base_model(storage.model(*model)))}
        read |= {(job.id, None)} | models | bases
    return read


def _clear(storage: Storage) -> None:
    """Copies whose process was killed while they came or went."""
    for path in storage.passing_models.glob("*"):
        try:
            stale = time.time() - path.stat().st_mtime > _STALE_S
        except FileNotFoundError:
            continue
        if stale:
            shutil.rmtree(path, ignore_errors=True)


async def _clear_store(database: Database, models_url: str) -> None:
    """What a process sent of a model that was deleted meanwhile, when it was killed before it removed that. Folders of
    jobs that this database does not know are somebody else's."""
    await bucket(models_url).abort_stale(utc_now() - timedelta(seconds=_STALE_S))
    names = sorted(name for name in await bucket(models_url).folders() if is_id("job", name))
    for job in await _jobs(database, names, Job.model_deleted_at.is_not(None)):
        await folder.remove(folder.address(models_url, job.id))
    exports = {name: which for name in await bucket(models_url).folders() if (which := parsed(name))}
    known = {job.id for job in await _jobs(database, sorted({job_id for job_id, _, _ in exports.values()}))}
    for name, (job_id, step, generation) in sorted(exports.items()):
        async with database.reading() as session:
            export = await session.get(CheckpointExport, (job_id, step))
        is_kept = export is not None and (export.generation, export.deleted_at) == (generation, None)
        if job_id in known and not (is_kept and export is not None and export.state is ExportState.READY):
            await folder.remove(folder.address(models_url, name))


def _names(models: Path) -> list[str]:
    return sorted(path.name for path in models.glob("job-*") if is_id("job", path.name))
