"""Uploaded files: streamed to the storage whole or not at all, read back, and deleted."""

import re
from collections.abc import AsyncIterator
from typing import BinaryIO

from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import File
from service.errors import InvalidState, NotFound, QuotaExceeded
from service.files import contents
from service.files.recording import recording
from service.files.repository import FileRepository
from service.ids import new_id
from service.jobs import calls
from service.jobs.repository import JobRepository
from service.projects import usage
from service.settings import Settings

_MAX_FILENAME = 255


async def store(
    database: Database, settings: Settings, project_id: str, filename: str, chunks: AsyncIterator[bytes]
) -> File:
    """Write the chunks and record the file; memory used does not grow with it.

    If `chunks` raises, nothing is left. Raises TooLarge past `settings.max_upload_bytes`, QuotaExceeded,
    and Unavailable if the object store does not answer.
    """
    return (await store_once(database, settings, project_id, filename, chunks, None))[0]


async def store_once(
    database: Database,
    settings: Settings,
    project_id: str,
    filename: str,
    chunks: AsyncIterator[bytes],
    sent: calls.Sent | None,
) -> tuple[File, bool]:
    """As `store`, for a request that may be sent again; returns the file and whether an earlier one had made it: the
    same bytes under the same name. Its bytes are read to the end all the same, to be known for the same."""
    await usage.measure_models(database, settings, project_id)
    if sent is None or not sent.is_retry:  # the last of a quota may be what an earlier request took
        async with database.transaction() as session:  # what is full need not be sent more
            await usage.hold_for_bytes(session, project_id, 1)
    file = await write(settings, project_id, filename, chunks)
    if sent is not None:
        try:
            file.call_id = await sent.key(database, project_id, "file", file.filename, file.sha256)
        except BaseException:  # also a request that is torn down
            await contents.remove(settings, file.id)
            raise
    try:
        async with recording(database, lambda: contents.remove(settings, file.id)) as session:
            await record(session, file)
    except (IntegrityError, QuotaExceeded):  # the earlier request came through, and may have taken the last of a quota
        async with database.reading() as session:
            made = await FileRepository(session).of_call(project_id, file.call_id) if file.call_id else None
        if made is None:
            raise
        return made, True
    return file, False


async def write(settings: Settings, project_id: str, filename: str, chunks: AsyncIterator[bytes]) -> File:
    """The bytes of a file and its row, which the caller records: a row always has its bytes.

    If `chunks` raises, nothing is left. Raises TooLarge, Unavailable.
    """
    file_id = new_id("file")
    size, sha256 = await contents.write(settings, file_id, chunks)
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


async def open_content(database: Database, settings: Settings, project_id: str, file_id: str) -> tuple[File, BinaryIO]:
    """The file and its bytes, which stay readable although it be deleted meanwhile. Raises NotFound."""
    async with database.reading() as session:
        file = await FileRepository(session).get_in_project(file_id, project_id)
    try:
        return file, await contents.open_bytes(settings, file.id)
    except FileNotFoundError as error:
        raise NotFound("The file has just been deleted.") from error


async def delete(database: Database, settings: Settings, project_id: str, file_id: str) -> None:
    """Delete the file: from the commit on it is gone for everyone, then its bytes go, then its row.

    What a crash leaves of that, `finish_deletions` removes. Raises NotFound, and InvalidState while a job that has not
    ended needs the file.
    """
    async with database.transaction() as session:
        file = await FileRepository(session).get_in_project(file_id, project_id, lock=True)
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
    await contents.remove(settings, file.id)
    async with database.transaction() as session:
        await session.execute(sql_delete(File).where(File.id == file.id, File.deleted_at.is_not(None)))


def clean_filename(name: str) -> str:
    """The name for people to recognise: no directories, no control characters, at most 255 characters.

    It never becomes a path; files lie under their ID.
    """
    base = re.split(r"[/\\]", name.encode(errors="replace").decode())[-1]
    return "".join(character for character in base if character.isprintable())[:_MAX_FILENAME] or "upload"
