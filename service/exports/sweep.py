"""Removing pinned checkpoints that nobody has exported any more: what crashes leave between a pin and its row, or
between a model and the end of its pin."""

import asyncio
import shutil
import time
from pathlib import Path

from service.db.session import Database
from service.exports.pin import unpin
from service.exports.service import find
from service.jobs.states import ExportState
from service.settings import Settings
from service.spec import Storage

_UNTOUCHED_S = 24 * 3600.0  # until then a request may be on its way to its row, or still be copying


async def sweep(database: Database, settings: Settings) -> None:
    storage = Storage(settings.storage_root)
    for path in await asyncio.to_thread(_untouched, storage):
        job_id, step = path.parent.parent.name, path.name.removeprefix("step-")
        if not step.isdecimal():  # of a copy that was not finished
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            continue
        async with database.reading() as session:
            export = await find(session, job_id, int(step))
        if export is None or export.state is ExportState.READY or export.removed_at is not None:
            await asyncio.to_thread(unpin, storage, job_id, int(step))


def _untouched(storage: Storage) -> list[Path]:
    before = time.time() - _UNTOUCHED_S
    found = []
    for path in storage.pins():
        try:
            if path.is_dir() and path.stat().st_mtime < before:
                found.append(path)
        except FileNotFoundError:  # gone meanwhile
            continue
    return found
