"""Uploads: begun, given parts, completed or cancelled.

Bytes lie on disk before their row is written, and a file is seen from the commit that completes its upload on; what a
crash leaves behind is seen by nobody, and `service.uploads.sweep` removes it.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import File, Upload, UploadPart
from service.errors import InvalidRequest, InvalidState, NotFound, ServiceError, TooLarge
from service.files import contents
from service.files import service as files
from service.files.disk import write_whole
from service.files.repository import FileRepository
from service.ids import new_id
from service.settings import Settings
from service.spec import Storage
from service.uploads.repository import UploadRepository, UploadStatus, status_of

MAX_PART_BYTES = 64 * 2**20
MAX_PARTS = 10_000
MAX_PENDING = 100  # of a project
_SENT_ANEW = 2  # times the announced bytes may the parts come to, so that a wrong one can be sent anew
_PIECE_BYTES = 2**20


async def create(database: Database, settings: Settings, project_id: str, filename: str, size: int) -> Upload:
    """Begin an upload of `size` bytes. Raises TooLarge past `settings.max_upload_bytes`, and InvalidState while the
    project has 100 that are pending."""
    if size > settings.max_upload_bytes:
        raise TooLarge(f"A file may have {settings.max_upload_bytes} bytes at most: split it, or compress it.")
    now = utc_now()
    async with database.transaction() as session:
        if await UploadRepository(session).num_pending(project_id, now) >= MAX_PENDING:
            raise InvalidState(f"{MAX_PENDING} uploads are pending: complete or cancel one first.")
        upload = Upload(
            id=new_id("upload"),
            project_id=project_id,
            filename=files.clean_filename(filename),
            bytes=size,
            created_at=now,
            expires_at=now + timedelta(seconds=settings.upload_lifetime_s),
        )
        session.add(upload)
        await audit.record(session, upload.id)
    return upload


async def get(database: Database, project_id: str, upload_id: str) -> Upload:
    """Raises NotFound."""
    async with database.reading() as session:
        return await UploadRepository(session).get_in_project(upload_id, project_id)


async def add_part(
    database: Database, settings: Settings, project_id: str, upload: Upload, chunks: AsyncIterator[bytes]
) -> UploadPart:
    """Keep the chunks as a part; the same bytes again are the same part.

    If `chunks` raises, nothing is left. Raises TooLarge past 64 MiB or the announced bytes, InvalidRequest for no
    bytes, and InvalidState if the upload is not pending.
    """
    _require_pending(upload)
    part = UploadPart(id=new_id("part"), upload_id=upload.id, created_at=utc_now())
    path = _path(settings, part)
    limit = min(MAX_PART_BYTES, upload.bytes)
    too_large = f"A part may have {MAX_PART_BYTES} bytes at most, and no more than the {upload.bytes} announced."
    try:
        part.bytes, part.sha256 = await write_whole(path, chunks, limit, too_large)
    except FileNotFoundError as error:  # removed with the upload's other bytes
        raise InvalidState("The upload has ended while the part came in.") from error
    try:
        kept = await _record_part(database, project_id, part)
    except (ServiceError, SQLAlchemyError):
        path.unlink(missing_ok=True)
        raise
    if kept is not part:
        await asyncio.to_thread(path.unlink, missing_ok=True)
    return kept


async def complete(
    database: Database, settings: Settings, project_id: str, upload_id: str, part_ids: Sequence[str], md5: str | None
) -> tuple[Upload, File | None]:
    """Put the parts together, in this order, into a file; repeating the same request gets the same file.

    The file is None if it has been deleted since. Of two at once one wins, and the other gets its file. Raises
    InvalidRequest for unknown parts, another number of bytes than announced, or another MD5; InvalidState if the upload
    is not pending, and was not completed by the same request.
    """
    request = hashlib.sha256(json.dumps([list(part_ids), md5 and md5.lower()]).encode()).hexdigest()
    async with database.reading() as session:
        upload = await UploadRepository(session).get_in_project(upload_id, project_id)
        parts = {part.id: part for part in await UploadRepository(session).parts(upload.id)}
    if upload.file_id is not None:
        return await _completed(database, upload, request)
    _require_pending(upload)
    _require_whole(upload, parts, part_ids)
    paths = [_path(settings, parts[part_id]) for part_id in part_ids]
    try:
        file = await files.write(database, settings, project_id, upload.filename, _joined(paths, md5))
    except FileNotFoundError as error:
        upload = await get(database, project_id, upload_id)  # which has ended in the meantime
        if upload.file_id is not None:
            return await _completed(database, upload, request)
        raise InvalidState("The upload was cancelled or has expired.") from error
    try:
        async with database.transaction() as session:
            upload = await UploadRepository(session).get_in_project(upload_id, project_id, lock=True)
            won = upload.file_id is None
            if upload.cancelled_at is not None:
                raise InvalidState("The upload was cancelled.")
            if won:
                await files.record(session, file)
                upload.file_id, upload.completed_as = file.id, request
    except (ServiceError, SQLAlchemyError):
        await contents.remove(settings, file.id)
        raise
    if not won:
        await contents.remove(settings, file.id)
        return await _completed(database, upload, request)
    await asyncio.to_thread(remove_bytes, settings, upload.id)
    return upload, file


async def cancel(database: Database, settings: Settings, project_id: str, upload_id: str) -> Upload:
    """End the upload and remove its bytes; idempotent. Raises InvalidState if it is completed or has expired."""
    async with database.transaction() as session:
        upload = await UploadRepository(session).get_in_project(upload_id, project_id, lock=True)
        if upload.cancelled_at is None:
            _require_pending(upload)
            upload.cancelled_at = utc_now()
            await audit.record(session, upload.id)
    await asyncio.to_thread(remove_bytes, settings, upload.id)
    return upload


def remove_bytes(settings: Settings, upload_id: str) -> None:
    """Of all parts, those that are still coming in too."""
    for path in Storage(settings.storage_root).uploads.glob(f"{upload_id}.*"):
        path.unlink(missing_ok=True)


def _require_pending(upload: Upload) -> None:
    status = status_of(upload, utc_now())
    if status is not UploadStatus.PENDING:
        raise InvalidState(f"The upload is {status}: begin another one with POST /v1/uploads.", upload_status=status)


async def _record_part(database: Database, project_id: str, part: UploadPart) -> UploadPart:
    """The part, or an earlier one of the same bytes."""
    async with database.transaction() as session:
        repository = UploadRepository(session)
        upload = await repository.get_in_project(part.upload_id, project_id, lock=True)
        _require_pending(upload)
        if not part.bytes:
            raise InvalidRequest("The part is empty: send its bytes in the field 'data'.", field="data")
        if earlier := await repository.part_with(upload.id, part.sha256):
            return earlier
        number, size = await repository.size_of_parts(upload.id)
        if number >= MAX_PARTS:
            raise TooLarge(f"An upload may have {MAX_PARTS} parts at most: send larger ones.")
        if size + part.bytes > _SENT_ANEW * upload.bytes:
            raise TooLarge(f"The parts come to more than {_SENT_ANEW} times the {upload.bytes} bytes announced.")
        session.add(part)
        await audit.record(session, part.id)
    return part


def _require_whole(upload: Upload, parts: dict[str, UploadPart], part_ids: Sequence[str]) -> None:
    for part_id in part_ids:
        if part_id not in parts:
            raise InvalidRequest(f"'{part_id[:100]}' is not a part of this upload.", field="part_ids")
    size = sum(parts[part_id].bytes for part_id in part_ids)
    if size != upload.bytes:
        raise InvalidRequest(f"The parts have {size} bytes and {upload.bytes} were announced.", field="part_ids")


async def _joined(paths: Sequence[Path], md5: str | None) -> AsyncIterator[bytes]:
    digest = hashlib.md5(usedforsecurity=False)
    for path in paths:
        with await asyncio.to_thread(path.open, "rb") as part:
            while piece := await asyncio.to_thread(part.read, _PIECE_BYTES):
                if md5 is not None:
                    digest.update(piece)
                yield piece
    if md5 is not None and digest.hexdigest() != md5.lower():
        raise InvalidRequest(
            f"The bytes have the MD5 {digest.hexdigest()}, not the one given: check the order of the parts, or send "
            "the one that is wrong anew.",
            field="md5",
        )


async def _completed(database: Database, upload: Upload, request: str) -> tuple[Upload, File | None]:
    if upload.completed_as != request or upload.file_id is None:
        raise InvalidState("The upload was completed with other parts or another MD5.", file_id=upload.file_id)
    async with database.reading() as session:
        try:
            return upload, await FileRepository(session).get_in_project(upload.file_id, upload.project_id)
        except NotFound:
            return upload, None


def _path(settings: Settings, part: UploadPart) -> Path:
    return Storage(settings.storage_root).uploads / f"{part.upload_id}.{part.id}"
