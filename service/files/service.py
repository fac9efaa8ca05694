"""Uploaded files: streamed to the storage whole or not at all, read back, and deleted."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import File
from service.errors import InvalidState, NotFound, QuotaExceeded
from service.files.disk import write_whole
from service.files.repository import FileRepository
from service.ids import is_id, new_id
from service.jobs.repository import JobRepository
from service.projects import usage
from service.settings import Settings
from service.spec import Storage

_MAX_FILENAME = 255
_STALE_S = 24 * 3600.0


async def store(
    database: Database, settings: Settings, project_id: str, filename: str, chunks: AsyncIterator[bytes]
) -> File:
    """Write the chunks under the storage root and record the file; memory used does not grow with it.

    If `chunks` raises, nothing is left. Raises TooLarge past `settings.max_upload_bytes`, and QuotaExceeded.
    """
    file = await write(database, settings, project_id, filename, chunks)
    try:
        async with database.transaction() as session:
            await record(session, file)
    except (SQLAlchemyError, QuotaExceeded):
        path_of(settings, file).unlink()
        raise
    return file


async def write(
    database: Database, settings: Settings, project_id: str, filename: str, chunks: AsyncIterator[bytes]
) -> File:
    """The bytes of a file and its row, which the caller records: a row always has its bytes.

    Raises as `store` does.
    """
    await usage.measure_models(database, settings, project_id)
    async with database.transaction() as session:  # what is full need not be sent more
        await usage.hold_for_bytes(session, project_id, 1)
    file_id = new_id("file")
    too_large = f"A file may have {settings.max_upload_bytes} bytes at most: split it, or compress it with gzip."
    final = Storage(settings.storage_root).files / file_id
    size, sha256 = await write_whole(final, chunks, settings.max_upload_bytes, too_large)
    return File(
        id=file_id,
        project_id=project_id,
        filename=clean_filename(filename),
        bytes=size,
        sha256=sha256,
        created_at=utc_now(),
    )


async def record(session: AsyncSession, file: File) -> None:
    """Raises QuotaExceeded if the project may not keep so much."""
    await usage.hold_for_bytes(session, file.project_id, file.bytes)
    session.add(file)
    await audit.record(session, file.id)


def path_of(settings: Settings, file: File) -> Path:
    return Storage(settings.storage_root).files / file.id


async def open_content(database: Database, settings: Settings, project_id: str, file_id: str) -> tuple[File, BinaryIO]:
    """The file and its bytes, which stay readable although it be deleted meanwhile. Raises NotFound."""
    async with database.reading() as session:
        file = await FileRepository(session).get_in_project(file_id, project_id)
    try:
        return file, await asyncio.to_thread(path_of(settings, file).open, "rb")
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
    await asyncio.to_thread(path_of(settings, file).unlink, missing_ok=True)
    async with database.transaction() as session:
        await session.execute(sql_delete(File).where(File.id == file.id, File.deleted_at.is_not(None)))


def sweep_parts(settings: Settings) -> int:
    """Remove what uploads left behind when their process was killed: parts untouched for a day. Returns how many."""
    stale = _stale(Storage(settings.storage_root).files.glob("*.part"))
    for part in stale:
        part.unlink(missing_ok=True)
    return len(stale)


async def sweep_unrecorded(database: Database, settings: Settings) -> int:
    """Remove the bytes of files whose process was killed before it wrote the row, a day after. Returns how many."""
    directory = Storage(settings.storage_root).files
    stale = await asyncio.to_thread(lambda: _stale(directory.glob("file-*")))
    old = {path.name for path in stale if is_id("file", path.name)}
    if not old:
        return 0
    async with database.reading() as session:  # after the look at the disk, so that no row is missed
        recorded = await FileRepository(session).all_ids()
    for file_id in old - recorded:
        await asyncio.to_thread((directory / file_id).unlink, missing_ok=True)
    return len(old - recorded)


def _stale(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        try:
            if time.time() - path.stat().st_mtime > _STALE_S:
                found.append(path)
        except FileNotFoundError:  # renamed or removed meanwhile
            continue
    return found


def clean_filename(name: str) -> str:
    """The name for people to recognise: no directories, no control characters, at most 255 characters.

    It never becomes a path; files lie under their ID.
    """
    base = re.split(r"[/\\]", name.encode(errors="replace").decode())[-1]
    return "".join(character for character in base if character.isprintable())[:_MAX_FILENAME] or "upload"
