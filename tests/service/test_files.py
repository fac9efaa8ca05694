import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.clock import utc_now
from service.db.session import Database
from service.errors import DatasetInvalid, InvalidState, NotFound, TooLarge
from service.files.contents import sweep_parts
from service.files.repository import FileRepository
from service.files.service import clean_filename, delete, finish_deletions, open_content, store
from service.jobs.admission import hold
from service.jobs.service import submit
from service.settings import Settings
from service.spec import AlignmentJob
from tests.service.conftest import add_file, make_model


async def chunks(*parts: bytes, breaks: bool = False) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if breaks:
        raise ConnectionResetError


def stored(settings: Settings) -> list[Path]:
    return sorted((settings.storage_root / "files").iterdir())


async def test_what_is_stored_is_what_was_sent(database: Database, settings: Settings) -> None:
    content = os.urandom(3 * 2**20 + 17)
    parts = [content[start : start + 70_000] for start in range(0, len(content), 70_000)]
    file = await store(database, settings, "ada", "pairs.jsonl", chunks(*parts))

    assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [path.name for path in stored(settings)] == [file.id]
    assert stored(settings)[0].read_bytes() == content


async def test_an_upload_that_breaks_off_leaves_nothing(database: Database, settings: Settings) -> None:
    with pytest.raises(ConnectionResetError):
        await store(database, settings, "ada", "pairs.jsonl", chunks(b"half", breaks=True))

    assert stored(settings) == []
    async with database.reading() as session:
        assert await FileRepository(session).page("ada", limit=10) == ([], None)


async def test_a_file_over_the_limit_leaves_nothing(database: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"max_upload_bytes": 10})
    await store(database, settings, "ada", "fits", chunks(b"12345", b"67890"))
    with pytest.raises(TooLarge, match="10 bytes"):
        await store(database, settings, "ada", "does not", chunks(b"12345", b"678901"))
    assert len(stored(settings)) == 1


async def test_another_owners_file_is_not_there(database: Database, settings: Settings) -> None:
    file = await store(database, settings, "bob", "pairs.jsonl", chunks(b"x"))
    async with database.reading() as session:
        with pytest.raises(NotFound):
            await FileRepository(session).get_in_project(file.id, "ada")


async def test_parts_of_a_killed_process_are_swept_after_a_day(settings: Settings) -> None:
    directory = settings.storage_root / "files"
    directory.mkdir(parents=True)
    old, young, whole = directory / "old.part", directory / "young.part", directory / "file-1"
    for path in (old, young, whole):
        path.write_bytes(b"x")
    for path in (old, whole):
        os.utime(path, (time.time() - 90_000,) * 2)

    assert sweep_parts(settings) == 1
    assert stored(settings) == [whole, young]


@pytest.mark.parametrize("bytes_gone", [True, False])
async def test_a_deletion_that_was_killed_is_seen_by_no_one_and_finished_at_the_next_start(
    database: Database, settings: Settings, bytes_gone: bool
) -> None:
    file, kept = [await store(database, settings, "ada", "a", chunks(b"x")) for _ in range(2)]
    async with database.transaction() as session:
        (await FileRepository(session).get_in_project(file.id, "ada", lock="delete")).deleted_at = utc_now()
    if bytes_gone:
        (settings.storage_root / "files" / file.id).unlink()

    with pytest.raises(NotFound):
        await open_content(database, settings, "ada", file.id)
    async with database.reading() as session:
        assert [one.id for one in (await FileRepository(session).page("ada", limit=10))[0]] == [kept.id]
    assert await finish_deletions(database, settings) == 1
    assert [path.name for path in stored(settings)] == [kept.id]
    assert await finish_deletions(database, settings) == 0


async def test_of_a_job_and_a_deletion_at_once_one_is_refused(database: Database, settings: Settings) -> None:
    model = str(make_model(settings.storage_root / "models" / "tiny"))
    for turn in range(6):
        file_id = await add_file(database, settings, b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
        spec = AlignmentJob.model_validate({"model": model, "data": {"train": file_id}})

        async def submitted(spec: AlignmentJob = spec, turn: int = turn) -> bool:
            await asyncio.sleep(turn % 3 / 500)
            try:
                await submit(database, settings, "ada", spec)
            except DatasetInvalid:
                return False
            return True

        async def deleted(file_id: str = file_id) -> bool:
            try:
                await delete(database, settings, "ada", file_id)
            except InvalidState:
                return False
            return True

        made, gone = await asyncio.gather(submitted(), deleted())
        assert made is not gone
        assert (settings.storage_root / "files" / file_id).exists() is made


async def test_a_file_deleted_between_check_and_insert_makes_no_job(database: Database, settings: Settings) -> None:
    file_id = await add_file(database, settings, b"x")
    spec = AlignmentJob.model_validate({"model": "/m", "data": {"train": file_id}})
    async with database.transaction() as session:
        await hold(session, "ada", spec)
    await delete(database, settings, "ada", file_id)
    async with database.transaction() as session:
        with pytest.raises(DatasetInvalid, match="no file"):
            await hold(session, "ada", spec)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("pairs.jsonl", "pairs.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\pairs.jsonl", "pairs.jsonl"),
        ("a\0b\r\nc\x1b[31m", "abc[31m"),
        ("\ud800.jsonl", "?.jsonl"),
        ("", "upload"),
        ("dir/", "upload"),
        ("x" * 1000, "x" * 255),
    ],
)
def test_a_filename_is_a_name_and_never_a_path(sent: str, kept: str) -> None:
    assert clean_filename(sent) == kept
