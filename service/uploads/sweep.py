"""Removes what no upload needs any more: bytes of those that have ended, and what killed processes left."""

import asyncio
from datetime import timedelta

from service.clock import utc_now
from service.db.session import Database
from service.files import contents
from service.settings import Settings
from service.uploads import parts
from service.uploads.repository import UploadRepository

_REMEMBERED = timedelta(days=7)  # after its expiry, an upload that is asked for can still say what became of it


async def sweep(database: Database, settings: Settings) -> int:
    """Returns the number of uploads whose bytes were removed. Safe to run twice at once and beside every request."""
    await asyncio.to_thread(contents.sweep_parts, settings)
    await contents.sweep_unrecorded(database, settings)
    held = await parts.held(settings)
    now = utc_now()
    async with database.reading() as session:  # after the look at the bytes, so that no new upload is missed
        ended = held - await UploadRepository(session).pending(now)
    for upload_id in ended:
        await parts.remove_all(settings, upload_id)
    async with database.transaction() as session:
        await UploadRepository(session).forget(now - _REMEMBERED)
    return len(ended)
