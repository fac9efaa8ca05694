"""Commits whose answer never came: the row is there, and so are its bytes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.pair_tables import PairFlag
from service.db.session import Database
from service.db.tables import File, UploadPart
from service.errors import InvalidState
from service.files.service import open_content
from service.pairs.export import export
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from service.uploads import service as uploads
from tests.service.conftest import add_file, add_job

ROWS = b"".join(b'{"prompt": "a", "chosen": "b", "rejected": "c%d"}\n' % number for number in range(3))


@pytest.fixture
def answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every commit that wrote the row of stored bytes."""
    transaction = Database.transaction

    @asynccontextmanager
    async def losing(database: Database, **options: bool) -> AsyncIterator[AsyncSession]:
        written: list[object] = []
        async with transaction(database, **options) as session:
            event.listen(session.sync_session, "before_flush", lambda flushed, *_: written.extend(flushed.new))
            yield session
        if any(isinstance(row, File | UploadPart) for row in written):
            raise OperationalError("COMMIT", None, ConnectionResetError())

    monkeypatch.setattr(Database, "transaction", losing)


async def chunks(content: bytes = ROWS) -> AsyncIterator[bytes]:
    yield content


async def files_of(database: Database) -> list[str]:
    async with database.reading() as session:
        return list(await session.scalars(select(File.id).order_by(File.created_at)))


async def content_of(database: Database, settings: Settings, file_id: str) -> bytes:
    _, stored = await open_content(database, settings, "ada", file_id)
    with stored:
        return stored.read()


@pytest.mark.usefixtures("answer_is_lost")
async def test_an_uploaded_file_keeps_its_bytes(database: Database, settings: Settings) -> None:
    with pytest.raises(DBAPIError):
        await add_file(database, settings, ROWS)
    (file_id,) = await files_of(database)
    assert await content_of(database, settings, file_id) == ROWS


async def test_an_upload_in_parts_is_completed_by_repeating_what_was_not_answered(
    database: Database, settings: Settings, request: pytest.FixtureRequest
) -> None:
    upload, _ = await uploads.create(database, settings, "ada", "pairs.jsonl", len(ROWS))
    request.getfixturevalue("answer_is_lost")
    with pytest.raises(DBAPIError):
        await uploads.add_part(database, settings, "ada", upload, chunks())
    async with database.reading() as session:
        part_id = (await session.scalars(select(UploadPart.id))).one()
    with pytest.raises(DBAPIError):
        await uploads.complete(database, settings, "ada", upload.id, [part_id], None)
    _, file = await uploads.complete(database, settings, "ada", upload.id, [part_id], None)
    assert file is not None
    assert await content_of(database, settings, file.id) == ROWS


async def test_a_corrected_file_keeps_its_bytes(
    database: Database, settings: Settings, request: pytest.FixtureRequest
) -> None:
    source = await add_file(database, settings, ROWS)
    spec = AlignmentJob.model_validate({"model": "/m", "data": {"train": source}}).model_dump(mode="json")
    async with database.transaction() as session:
        job = await add_job(session, spec=spec)
        session.add(PairFlag(job_id=job.id, row=1, action="drop", note="", key_id="key", created_at=utc_now()))
    request.getfixturevalue("answer_is_lost")
    with pytest.raises(DBAPIError):
        await export(database, settings, "ada", job.id)
    corrected = (await files_of(database))[1]
    assert (await content_of(database, settings, corrected)).count(b"\n") == 2
    again, made = await export(database, settings, "ada", job.id)
    assert (again.id, made) == (corrected, False)


async def test_bytes_whose_row_is_refused_go(database: Database, settings: Settings) -> None:
    upload, _ = await uploads.create(database, settings, "ada", "pairs.jsonl", len(ROWS))

    async def ends_meanwhile() -> AsyncIterator[bytes]:
        yield ROWS
        async with database.transaction() as session:
            (await session.get_one(type(upload), upload.id)).expires_at = utc_now()

    with pytest.raises(InvalidState, match="expired"):
        await uploads.add_part(database, settings, "ada", upload, ends_meanwhile())
    assert [path for path in Storage(settings.storage_root).root.rglob("part-*") if path.is_file()] == []
