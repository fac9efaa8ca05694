"""Exported checkpoints in the object store: copied there, and removed.

Each export has a folder of its own, so that what comes late of a deleted one does not touch the next of the checkpoint.
"""

import asyncio
import logging
import re
from collections.abc import Collection

from sqlalchemy import select

from service.archive import folder
from service.archive.manifest import manifest_of
from service.db.guarded import guarded_update
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.errors import Unavailable
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import ExportState
from service.settings import Settings
from service.spec import Storage

log = logging.getLogger(__name__)

_NAME = re.compile(r"(job-[0-9a-f]{21})@(\d{1,9})\.(\d{1,9})", re.ASCII)


def name_of(export: CheckpointExport) -> str:
    """Of its folder, and in its manifest."""
    return f"{export.job_id}@{export.step}.{export.generation}"


def parsed(name: str) -> tuple[str, int, int] | None:
    """Job, step and generation of a folder's name; None if it is none of an export."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2]), int(match[3])) if match else None


async def next_export(database: Database, *, without: Collection[str] = ()) -> CheckpointExport | None:
    """Of the exports whose models are on the storage alone, the one that has been ready for longest. without: their
    names."""
    found = select(CheckpointExport).where(
        CheckpointExport.state == ExportState.READY,
        CheckpointExport.archive.is_(None),
        CheckpointExport.deleted_at.is_(None),
    )
    async with database.reading() as session:
        rows = await session.scalars(found.order_by(CheckpointExport.updated_at).limit(len(without) + 1))
        return next((export for export in rows if name_of(export) not in without), None)


async def archive_export(database: Database, settings: Settings, export: CheckpointExport) -> bool:
    """Copy the model into the object store; whether there was a model to copy.

    Killed at any point, it is done again from the start. A model that is deleted meanwhile leaves nothing, unless this
    process is killed too: `service.archive.sweep` removes that. Raises Unavailable.
    """
    assert settings.models_url is not None
    name = name_of(export)
    url = folder.address(settings.models_url, name)
    directory = Storage(settings.storage_root).model(export.job_id, export.step)
    try:
        manifest = await asyncio.to_thread(manifest_of, name, directory)
        await folder.put(url, directory, manifest)
    except FileNotFoundError as error:
        if directory.is_dir():
            raise Unavailable(f"The object store of {url} is not there: {error}.") from error
        manifest = None
    unchanged = (
        CheckpointExport.state == ExportState.READY,
        CheckpointExport.generation == export.generation,
        CheckpointExport.deleted_at.is_(None),
    )
    async with database.transaction() as session:
        job = await JobRepository(session).get(export.job_id, lock=True)
        values = {"archive": url if manifest is not None else None}
        is_there = await guarded_update(session, export, values, *unchanged)
        if is_there and manifest is not None:
            message = f"Checkpoint after step {export.step}: The object store has a copy of the model."
            data = {"url": url, "bytes": manifest.bytes, "step": export.step}
            await append_event(session, job, "model.archived", message, data=data)
            return True
    if is_there:
        log.warning("the model %s is not on the storage, and so not copied into the object store", name)
        return False
    await folder.remove(url)
    return True


async def remove_archive(settings: Settings, export: CheckpointExport) -> None:
    """Of a deleted export: also what a process that was copying it has sent. Idempotent. Raises Unavailable."""
    urls = {export.archive} if export.archive is not None else set()
    if settings.models_url is not None:
        urls.add(folder.address(settings.models_url, name_of(export)))
    for url in urls:
        await folder.remove(url)
