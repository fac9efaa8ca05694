"""Models that jobs made on the storage, where the cluster reads them: brought back from the object store when they are
needed.

A copy comes in the background of the process that asked first, and has its name only when it is whole and checked; who
waits for longer than `wait_s` is told to try again. Two processes may fetch the same model; one copy is kept.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from service.archive import folder
from service.archive.exported import name_of
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.errors import ModelNotFound, ModelUnusable, NotFound, Unavailable
from service.ids import is_id
from service.jobs.repository import JobRepository
from service.jobs.states import ExportState
from service.settings import Settings
from service.spec import AlignmentJob, Storage

_WAIT_S = 20.0
_NOTED_EVERY_S = 3600.0

_coming: dict[Path, asyncio.Task[None]] = {}


@dataclass(frozen=True)
class _Copy:
    """What the object store has of a model. name: in its manifest. generation: of the export that it is of."""

    url: str
    name: str
    job_id: str
    step: int | None = None
    generation: int | None = None


async def local_model(
    database: Database, settings: Settings, job_id: str, step: int | None = None, *, wait_s: float = _WAIT_S
) -> Path:
    """The directory of the model that the job published, or of its exported checkpoint; whether it is there, if no
    object store has it, the caller finds out.

    Raises Unavailable if the copy is not there after `wait_s` seconds: try again; ModelUnusable if the object store's
    is damaged; ModelNotFound if the model is deleted meanwhile; NotFound if there is no such job.
    """
    storage = Storage(settings.storage_root)
    path = storage.model(job_id, step)
    if await asyncio.to_thread(_in_use, path) or (copy := await _copy_of(database, job_id, step)) is None:
        return path
    task = _coming.get(path)
    if task is None:
        task = _coming[path] = asyncio.create_task(_bring(database, storage, copy))
        task.add_done_callback(lambda done: _forget(path, done))
    done, _ = await asyncio.wait([task], timeout=wait_s)
    if not done:
        raise Unavailable(f"The model of {job_id} is being copied from the object store: try again shortly.")
    _coming.pop(path, None)
    task.result()
    return path


async def bring_models(database: Database, settings: Settings, spec: AlignmentJob, *, wait_s: float = _WAIT_S) -> None:
    """Put the published models that the job reads on the storage. Raises as `local_model` does."""
    for ref in (spec.model, spec.reference):
        if ref is None or ref.job_id is None:
            continue
        path = await local_model(database, settings, ref.job_id, ref.step, wait_s=wait_s)
        if spec.continues_adapter and ref is spec.model:
            await bring_base(database, settings, path, wait_s=wait_s)


async def bring_base(database: Database, settings: Settings, model: Path, *, wait_s: float = _WAIT_S) -> None:
    """Put the weights under a published model's adapter on the storage, if a job published them. Raises as
    `local_model` does."""
    if (base := await asyncio.to_thread(base_model, model)) is not None:
        job_id, step = base
        await local_model(database, settings, job_id, step, wait_s=wait_s)


def base_model(model: Path) -> tuple[str, int | None] | None:
    """The weights under the adapter in a model's directory, if a job made them: which, and of an exported checkpoint
    the step."""
    try:
        adapter = json.loads((model / "adapter" / "adapter_config.json").read_bytes())
        base = Path(adapter["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if base.parent.name == "models" and is_id("job", base.name):
        return base.name, None
    step = re.fullmatch(r"step-(\d{8,9})", base.name, re.ASCII)
    if step and base.parent.parent.name == "exported" and is_id("job", base.parent.name):
        return base.parent.name, int(step[1])
    return None


def used_since(path: Path) -> float | None:
    """Seconds since somebody asked for the copy, to the hour; None if it is not there."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None


def set_aside(storage: Storage, job_id: str, step: int | None = None) -> Path | None:
    """Take the copy away, to be deleted at leisure; where it is now, None if there is none. What a crash leaves there,
    the sweep removes."""
    aside = _passing(storage, job_id)
    try:
        storage.model(job_id, step).rename(aside)
    except FileNotFoundError:
        return None
    return aside


async def _copy_of(database: Database, job_id: str, step: int | None) -> _Copy | None:
    async with database.reading() as session:
        job = await JobRepository(session).get(job_id)
        export = await session.get(CheckpointExport, (job_id, step)) if step is not None else None
    if step is None:
        is_there = job.model_archive is not None and job.model_deleted_at is None
        return _Copy(job.model_archive, job_id, job_id) if is_there and job.model_archive else None
    if export is None or export.archive is None or export.deleted_at is not None:
        return None
    return _Copy(export.archive, name_of(export), job_id, step, export.generation)


async def _bring(database: Database, storage: Storage, copy: _Copy) -> None:
    part, path = _passing(storage, copy.job_id), storage.model(copy.job_id, copy.step)
    try:
        await folder.fetch(copy.url, part, copy.name)
        async with database.transaction() as session:
            if not await _is_wanted(session, copy):
                raise ModelNotFound(f"The model of {copy.job_id} was deleted: name another one.")
            await asyncio.to_thread(_put_in_place, part, path)
    except OSError as error:
        raise Unavailable(f"The model of {copy.job_id} cannot be copied to the storage: {error}.") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)


async def _is_wanted(session: AsyncSession, copy: _Copy) -> bool:
    """Whether the model has not been deleted; whoever deletes it then waits for this transaction."""
    if copy.step is not None:
        key = copy.job_id, copy.step
        export = await session.get(CheckpointExport, key, with_for_update=True, populate_existing=True)
        is_same = export is not None and (export.state, export.generation) == (ExportState.READY, copy.generation)
        return is_same and export is not None and export.deleted_at is None
    try:
        return (await JobRepository(session).get(copy.job_id, lock=True)).model_deleted_at is None
    except NotFound:
        return False


def _put_in_place(part: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.rename(path)
    except OSError:
        if not path.is_dir():  # else another process was quicker
            raise


def _forget(path: Path, done: asyncio.Task[None]) -> None:
    """What has failed for good is kept until it is told to somebody."""
    failed = None if done.cancelled() else done.exception()
    if not isinstance(failed, ModelUnusable):
        _coming.pop(path, None)


def _in_use(path: Path) -> bool:
    """Whether the copy is there; notes that it was asked for, so that it is not evicted."""
    since_s = used_since(path)
    if since_s is None:
        return False
    if since_s > _NOTED_EVERY_S:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
    return True


def _passing(storage: Storage, job_id: str) -> Path:
    storage.passing_models.mkdir(parents=True, exist_ok=True)
    storage.models.mkdir(parents=True, exist_ok=True)
    return storage.passing_models / f"{job_id}.{secrets.token_hex(4)}"
