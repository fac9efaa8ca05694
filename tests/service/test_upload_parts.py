"""Uploads in parts whose bytes are in an object store, and what pending ones count for in the quota."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Upload, UploadPart
from service.errors import InvalidState, QuotaExceeded
from service.files.service import open_content
from service.projects import service as projects
from service.projects import usage
from service.projects.quota import Quota
from service.settings import Settings
from service.spec import Storage
from service.uploads import parts, service
from service.uploads.sweep import sweep
from tests.s3_server import keys

LARGE = 6 * 2**20  # of more than one piece


@pytest.fixture
def settings(tmp_path: Path, database_url: str, empty_bucket: str) -> Settings:
    return Settings(home=tmp_path, database_url=database_url, secret="a secret", files_url=f"{empty_bucket}/files")


def on(disk: str, settings: Settings) -> Settings:
    """Those of a replica with storage of its own."""
    return settings.model_copy(update={"storage": settings.home / disk})


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 2**20):
        yield content[start : start + 2**20]


async def begin(database: Database, settings: Settings, size: int) -> Upload:
    upload, _ = await service.create(database, settings, "ada", "pairs.jsonl", size)
    return upload


async def send(database: Database, settings: Settings, upload: Upload, content: bytes) -> UploadPart:
    return await service.add_part(database, settings, "ada", upload, chunks(content))


async def limit(database: Database, max_storage_bytes: int) -> None:
    async with database.transaction() as session:
        await projects.ensure(session, "ada")
        await projects.set_quota(session, "ada", Quota(max_storage_bytes=max_storage_bytes))


async def test_parts_that_several_replicas_took_are_joined_by_another_one(
    database: Database, settings: Settings
) -> None:
    contents = [os.urandom(LARGE), b"small", os.urandom(100)]
    upload = await begin(database, settings, sum(map(len, contents)))
    sent = [
        await send(database, on(f"replica{number}", settings), upload, content)
        for number, content in enumerate(contents)
    ]
    third = on("third", settings)
    ids = [part.id for part in sent]
    done = await asyncio.gather(
        *(service.complete(database, third, "ada", upload.id, ids, None) for _ in range(2))
    )  # two at once: one file
    file = done[0][1]
    assert file is not None
    assert keys() == [f"files/{file.id}"]
    _, stored = await open_content(database, on("fourth", settings), "ada", file.id)
    with stored:
        assert await asyncio.to_thread(stored.read) == b"".join(contents)


async def test_a_part_from_before_there_was_an_object_store_is_joined_with_later_ones(
    database: Database, settings: Settings
) -> None:
    before = settings.model_copy(update={"files_url": None})
    upload = await begin(database, before, 6)
    sent = [await send(database, before, upload, b"old"), await send(database, settings, upload, b"new")]
    _, file = await service.complete(database, settings, "ada", upload.id, [part.id for part in sent], None)
    assert file is not None
    assert keys() == [f"files/{file.id}"]
    assert list(Storage(settings.storage_root).uploads.iterdir()) == []


async def test_the_same_bytes_again_and_a_cancelled_upload_leave_nothing_more(
    database: Database, settings: Settings
) -> None:
    upload = await begin(database, settings, 10)
    first, again = [await send(database, settings, upload, b"same") for _ in range(2)]
    assert first.id == again.id
    assert keys() == [f"files/uploads/{upload.id}/{first.id}"]

    async def cancelled_meanwhile() -> AsyncIterator[bytes]:
        yield b"x"
        await service.cancel(database, settings, "ada", upload.id)

    with pytest.raises(InvalidState):
        await service.add_part(database, settings, "ada", upload, cancelled_meanwhile())
    assert keys() == []


async def test_parts_of_uploads_that_have_ended_are_swept_and_pending_ones_kept(
    database: Database, settings: Settings
) -> None:
    expired, pending = [await begin(database, settings, 10) for _ in range(2)]
    await send(database, settings, expired, b"a")
    kept = await send(database, settings, pending, b"b")
    rolled_back = UploadPart(id="part-" + "0" * 21, upload_id="upload-" + "0" * 21)
    await parts.write(settings, rolled_back, chunks(b"of a killed process"), 100, "")
    async with database.transaction() as session:
        gone = update(Upload).where(Upload.id == expired.id).values(expires_at=utc_now() - timedelta(seconds=1))
        await session.execute(gone)
    assert await sweep(database, settings) == 2
    assert keys() == [f"files/uploads/{pending.id}/{kept.id}"]


async def test_pending_parts_count_until_they_are_a_file_or_cancelled(database: Database, settings: Settings) -> None:
    await limit(database, 10)
    upload = await begin(database, settings, 10)
    sent = [await send(database, settings, upload, content) for content in (b"aaaaa", b"bbbbb")]
    with pytest.raises(QuotaExceeded):
        await send(database, settings, upload, b"ccccc")  # a wrong one sent anew
    with pytest.raises(QuotaExceeded):
        await begin(database, settings, 1)
    assert len(keys()) == 2, "the refused bytes are gone"
    _, file = await service.complete(database, settings, "ada", upload.id, [part.id for part in sent], None)
    assert file is not None
    async with database.reading() as session:
        assert (await usage.usage(session, "ada")).storage_bytes == 10

    await limit(database, 20)
    upload = await begin(database, settings, 10)
    await send(database, settings, upload, b"ddddd")
    await service.cancel(database, settings, "ada", upload.id)
    async with database.reading() as session:
        assert (await usage.usage(session, "ada")).storage_bytes == 10
