"""The bytes of uploaded files: on the storage, or in an object store if `settings.files_url` names one.

With an object store the storage holds copies, which jobs read: they are fetched when they are needed, and go when they
have not been used for a day. Files from before there was an object store stay on the storage and are found there.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from service.clock import utc_now
from service.db.session import Database
from service.files.bucket import bucket
from service.files.disk import write_whole
from service.files.repository import FileRepository
from service.ids import is_id
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.spec import Storage

_STALE_S = 24 * 3600.0

_coming: dict[Path, asyncio.Task[None]] = {}


async def write(settings: Settings, file_id: str, chunks: AsyncIterator[bytes]) -> tuple[int, str]:
    """Whole or not at all; returns the number of bytes and their SHA-256. Raises TooLarge, Unavailable."""
    too_large = f"A file may have {settings.max_upload_bytes} bytes at most: split it, or compress it with gzip."
    if settings.files_url is not None:
        return await bucket(settings.files_url).write(file_id, chunks, settings.max_upload_bytes, too_large)
    return await write_whole(_path(settings, file_id), chunks, settings.max_upload_bytes, too_large)


async def open_bytes(settings: Settings, file_id: str) -> BinaryIO:
    """They stay readable from the storage although the file be deleted. Raises FileNotFoundError, Unavailable."""
    try:
        return await asyncio.to_thread(_path(settings, file_id).open, "rb")
    except FileNotFoundError:
        if settings.files_url is None:
            raise
        return await bucket(settings.files_url).open(file_id)


async def local_path(settings: Settings, file_id: str) -> Path:
    """Where the cluster reads the file; a copy is fetched if there is none, once for all who ask at one time, and to
    its end although they leave. Raises FileNotFoundError, Unavailable."""
    path = _path(settings, file_id)
    if settings.files_url is None:
        return path
    try:
        await asyncio.to_thread(os.utime, path)  # in use: see `sweep`
    except FileNotFoundError:
        task = _coming.get(path)
        if task is None:
            task = _coming[path] = asyncio.create_task(_fetch(settings.files_url, file_id, path))
            task.add_done_callback(lambda done: _forget(path, done))
        await asyncio.wait([task])  # who is cancelled leaves it to the others
        task.result()
    return path


def _forget(path: Path, done: asyncio.Task[None]) -> None:
    del _coming[path]
    if not done.cancelled():
        done.exception()  # is seen, although nobody waits any more


async def _fetch(url: str, file_id: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")  # another replica may fetch it too
    try:
        await bucket(url).fetch(file_id, part)
        await asyncio.to_thread(part.rename, path)
    finally:
        part.unlink(missing_ok=True)


def named_in(data: Mapping[str, Any]) -> set[str]:
    """Uploaded files that a job's `data` names."""
    return {value for value in data.values() if isinstance(value, str) and is_id("file", value)}


async def remove(settings: Settings, file_id: str) -> None:
    """Idempotent. Raises Unavailable."""
    if settings.files_url is not None:
        await bucket(settings.files_url).delete(file_id)
    await asyncio.to_thread(_path(settings, file_id).unlink, missing_ok=True)


def sweep_parts(settings: Settings) -> int:
    """Remove what uploads left behind when their process was killed: parts untouched for a day. Returns how many."""
    stale = _stale(Storage(settings.storage_root).files.glob("*.part"))
    for part in stale:
        part.unlink(missing_ok=True)
    return len(stale)


async def sweep_unrecorded(database: Database, settings: Settings) -> int:
    """Remove the bytes of files whose process was killed before it wrote the row, a day after, and copies that no job
    needs. Returns how many."""
    directory = Storage(settings.storage_root).files
    paths = await asyncio.to_thread(lambda: _stale(directory.glob("file-*")))
    local = {path.name for path in paths if is_id("file", path.name)}
    stored: set[str] = set()
    if settings.files_url is not None:
        yesterday = utc_now() - timedelta(seconds=_STALE_S)
        await bucket(settings.files_url).abort_stale(yesterday)
        stored = {name for name in await bucket(settings.files_url).older_than(yesterday) if is_id("file", name)}
    if not local | stored:
        return 0
    async with database.reading() as session:  # after the look at the bytes, so that no row is missed
        recorded = await FileRepository(session).all_ids()
        needed = {name for name in local & stored if await JobRepository(session).live_on_file(name)}
    for file_id in (local | stored) - recorded:
        await remove(settings, file_id)
    copies = (local & stored & recorded) - needed
    for file_id in copies:
        await asyncio.to_thread((directory / file_id).unlink, missing_ok=True)
    return len((local | stored) - recorded) + len(copies)


def _path(settings: Settings, file_id: str) -> Path:
    return Storage(settings.storage_root).files / file_id


def _stale(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        try:
            if time.time() - path.stat().st_mtime > _STALE_S:
                found.append(path)
        except FileNotFoundError:
            continue
    return found
