"""Uploads: begun, given parts, completed or cancelled.

Bytes are stored before their row is written, and a file is seen from the commit that completes its upload on; what a
crash leaves behind is seen by nobody, and `service.uploads.sweep` removes it.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import File, Upload, UploadPart
from service.errors import InvalidRequest, InvalidState, NotFound, QuotaExceeded, TooLarge
from service.files import contents
from service.files import service as files
from service.files.recording import recording
from service.files.repository import FileRepository
from service.ids import new_id
from service.jobs import calls
from service.projects import service as projects
from service.projects import usage
from service.settings import Settings
from service.uploads import parts
from service.uploads.repository import UploadRepository, UploadStatus, status_of

MAX_PART_BYTES = 64 * 2**20
MAX_PARTS = 10_000
MAX_PENDING = 100  # of a project
_SENT_ANEW = 2  # times the announced bytes may the parts come to, so that a wrong one can be sent anew


async def create(
    database: Database, settings: Settings, project_id: str, filename: str, size: int, sent: calls.Sent | None = None
) -> tuple[Upload, bool]:
    """Begin an upload of `size` bytes; returns it and whether an earlier request for it had.

    sent: of a request that may be sent again. Raises TooLarge past `settings.max_upload_bytes`, and InvalidState while
    the project has 100 that are pending, and QuotaExceeded if the project may not keep so much.
    """
    if size > settings.max_upload_bytes:
        raise TooLarge(f"A file may have {settings.max_upload_bytes} bytes at most: split it, or compress it.")
    now = utc_now()
    await usage.measure_models(database, settings, project_id)
    call_id = await sent.key(database, project_id, "upload", filename, str(size)) if sent is not None else None
    try:
        return await _begin(database, settings, project_id, filename, size, call_id, now), False
    except (IntegrityError, QuotaExceeded, InvalidState):  # it may be the earlier request's that filled the last place
        async with database.reading() as session:
            made = await UploadRepository(session).of_call(project_id, call_id) if call_id is not None else None
        if made is None:
            raise
        return made, True


async def _begin(
    database: Database,
    settings: Settings,
    project_id: str,
    filename: str,
    size: int,
    call_id: str | None,
    now: datetime,
) -> Upload:
    async with database.transaction() as session:
        await projects.hold(session, project_id)
        await usage.hold_for_bytes(session, project_id, size)
        if await UploadRepository(session).num_pending(project_id, now) >= MAX_PENDING:
            raise InvalidState(f"{MAX_PENDING} uploads are pending: complete or cancel one first.")
        upload = Upload(
            id=new_id("upload"),
            project_id=project_id,
            filename=files.clean_filename(filename),
            bytes=size,
            created_at=now,
            expires_at=now + timedelta(seconds=settings.upload_lifetime_s),
            call_id=call_id,
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
    bytes, InvalidState if the upload is not pending, QuotaExceeded, and Unavailable if the object store does not
    answer.
    """
    _require_pending(upload)
    part = UploadPart(id=new_id("part"), upload_id=upload.id, created_at=utc_now())
    limit = min(MAX_PART_BYTES, upload.bytes)
    too_large = f"A part may have {MAX_PART_BYTES} bytes at most, and no more than the {upload.bytes} announced."
    try:
        part.bytes, part.sha256 = await parts.write(settings, part, chunks, limit, too_large)
    except FileNotFoundError as error:  # removed with the upload's other bytes
        raise InvalidState("The upload has ended while the part came in.") from error
    async with recording(database, lambda: parts.remove(settings, part)) as session:
        kept = await _record_part(session, project_id, part)
    if kept is not part:
        await parts.remove(settings, part)
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
        recorded = {part.id: part for part in await UploadRepository(session).parts(upload.id)}
    if upload.file_id is not None:
        return await _completed(database, upload, request)
    _require_pending(upload)
    _require_whole(upload, recorded, part_ids)
    joined = _joined(settings, [recorded[part_id] for part_id in part_ids], md5)
    try:
        file = await files.write(settings, project_id, upload.filename, joined)
    except FileNotFoundError as error:
        upload = await get(database, project_id, upload_id)  # which has ended in the meantime
        if upload.file_id is not None:
            return await _completed(database, upload, request)
        raise InvalidState("The upload was cancelled or has expired.") from error
    async with recording(database, lambda: contents.remove(settings, file.id)) as session:
        upload = await UploadRepository(session).get_in_project(upload_id, project_id, lock=True)
        won = upload.file_id is None
        if upload.cancelled_at is not None:
            raise InvalidState("The upload was cancelled.")
        if won:
            upload.file_id, upload.completed_as = file.id, request
            await session.flush()  # from here on the file's bytes count, and its parts' do not
            await files.record(session, file)
    if not won:
        await contents.remove(settings, file.id)
        return await _completed(database, upload, request)
    await parts.remove_all(settings, upload.id)
    return upload, file


async def cancel(database: Database, settings: Settings, project_id: str, upload_id: str) -> Upload:
    """End the upload and remove its bytes; idempotent. Raises InvalidState if it is completed or has expired."""
    async with database.transaction() as session:
        upload = await UploadRepository(session).get_in_project(upload_id, project_id, lock=True)
        if upload.cancelled_at is None:
            _require_pending(upload)
            upload.cancelled_at = utc_now()
            await audit.record(session, upload.id)
    await parts.remove_all(settings, upload.id)
    return upload


def _require_pending(upload: Upload) -> None:
    status = status_of(upload, utc_now())
    if status is not UploadStatus.PENDING:
        raise InvalidState(f"The upload is {status}: begin another one with POST /v1/uploads.", upload_status=status)


async def _record_part(session: AsyncSession, project_id: str, part: UploadPart) -> UploadPart:
    """The part, or an earlier one of the same bytes."""
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
    await usage.hold_for_bytes(session, project_id, part.bytes)
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


async def _joined(settings: Settings, chosen: Sequence[UploadPart], md5: str | None) -> AsyncIterator[bytes]:
    digest = hashlib.md5(usedforsecurity=False)
    for part in chosen:
        async with aclosing(parts.pieces(settings, part)) as pieces:
            async for piece in pieces:
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
