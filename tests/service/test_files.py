import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.db.session import Database
from service.errors import NotFound, TooLarge
from service.files.repository import FileRepository
from service.files.service import clean_filename, store, sweep_parts
from service.settings import Settings


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
            await FileRepository(session).get_for_owner(file.id, "ada")


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
