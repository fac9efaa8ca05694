"""Uploaded files: streamed to the storage whole or not at all, read back, and deleted."""

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import SQLAlchemyError

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import File
from service.errors import InvalidState, NotFound, QuotaExceeded, TooLarge
from service.files.repository import FileRepository
from service.ids import new_id
from service.jobs.repository import JobRepository
from service.projects import usage
from service.settings import Settings
from service.spec import Storage

_BUFFER_BYTES = 2**20
_MAX_FILENAME = 255
_STALE_S = 24 * 3600.0


async def store(
    database: Database, settings: Settings, project_id: str, filename: str, chunks: AsyncIterator[bytes]
) -> File:
    """Write the chunks under the storage root and record the file; memory used does not grow with it.

    The bytes are written under a temporary name, synced and renamed before the row is written, so a row always has its
    bytes. If `chunks` raises, nothing is left. Raises TooLarge past `settings.max_upload_bytes`, and QuotaExceeded.
    """
    await usage.measure_models(database, settings, project_id)
    async with database.transaction() as session:  # what is full need not be sent more
        await usage.hold_for_bytes(session, project_id, 1)
    file_id = new_id("file")
    directory = Storage(settings.storage_root).files
    part, final = directory / f"{file_id}.part", directory / file_id
    try:
        size, sha256 = await _write(part, chunks, settings.max_upload_bytes)
        await asyncio.to_thread(_publish, part, final)
    except BaseException:  # also a request that is torn down (CancelledError)
        part.unlink(missing_ok=True)
        raise
    file = File(
        id=file_id,
        project_id=project_id,
        filename=clean_filename(filename),
        bytes=size,
        sha256=sha256,
        created_at=utc_now(),
    )
    try:
        async with database.transaction() as session:
            await usage.hold_for_bytes(session, project_id, size)
            session.add(file)
            await audit.record(session, file_id)
    except (SQLAlchemyError, QuotaExceeded):
        final.unlink()
        raise
    return file


async def open_content(database: Database, settings: Settings, project_id: str, file_id: str) -> tuple[File, BinaryIO]:
    """The file and its bytes, which stay readable although it be deleted meanwhile. Raises NotFound."""
    async with database.reading() as session:
        file = await FileRepository(session).get_in_project(file_id, project_id)
    path = Storage(settings.storage_root).files / file.id
    try:
        return file, await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError as error:
        raise NotFound("The file has just been deleted.") from error


async def delete(database: Database, settings: Settings, project_id: str, file_id: str) -> None:
    """Delete the file: from the commit on it is gone for everyone, then its bytes go, then its row.

    What a crash leaves of that, `finish_deletions` removes. Raises NotFound, and InvalidState while a job that has not
    ended needs the file.
    """
    async with database.transaction() as session:
        file = await FileRepository(session).get_in_project(file_id, project_id, lock="delete")
        if job := await JobRepository(session).live_on_file(file.id):
            raise InvalidState(f"{job.id} is {job.state} and needs the file: wait for it, or cancel it.", job_id=job.id)
        file.deleted_at = utc_now()
        await audit.record(session, file.id)
    await _finish_deletion(database, settings, file)


async def finish_deletions(database: Database, settings: Settings) -> int:
    """Remove what is left of deleted files; returns how many that were. Safe to run twice at once."""
    async with database.reading() as session:
        deleted = await FileRepository(session).deleted()
    for file in deleted:
        await _finish_deletion(database, settings, file)
    return len(deleted)


async def _finish_deletion(database: Database, settings: Settings, file: File) -> None:
    path = Storage(settings.storage_root).files / file.id
    await asyncio.to_thread(path.unlink, missing_ok=True)
    async with database.transaction() as session:
        await session.execute(sql_delete(File).where(File.id == file.id, File.deleted_at.is_not(None)))


def sweep_parts(settings: Settings) -> int:
    """Remove what uploads left behind when their process was killed: parts untouched for a day. Returns how many."""
    removed = 0
    for part in Storage(settings.storage_root).files.glob("*.part"):
        if time.time() - part.stat().st_mtime > _STALE_S:
            part.unlink(missing_ok=True)
            removed += 1
    return removed


def clean_filename(name: str) -> str:
    """The name for people to recognise: no directories, no control characters, at most 255 characters.

    It never becomes a path; files lie under their ID.
    """
    base = re.split(r"[/\\]", name.encode(errors="replace").decode())[-1]
    return "".join(character for character in base if character.isprintable())[:_MAX_FILENAME] or "upload"


async def _write(part: Path, chunks: AsyncIterator[bytes], max_bytes: int) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    buffer = bytearray()
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("xb") as out:

        def flush() -> None:
            digest.update(buffer)
            out.write(buffer)

        async for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise TooLarge(f"A file may have {max_bytes} bytes at most: split it, or compress it with gzip.")
            buffer += chunk
            if len(buffer) >= _BUFFER_BYTES:
                await asyncio.to_thread(flush)
                buffer.clear()
        await asyncio.to_thread(flush)
        await asyncio.to_thread(_sync, out)
    return size, digest.hexdigest()


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _publish(part: Path, final: Path) -> None:
    part.rename(final)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
