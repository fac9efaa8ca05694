"""Uploads in an object store, against a server that speaks S3."""

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import boto3
import pytest

from api.cli.processes import free_port
from service.cluster.http import connect
from service.controller.context import make_controller
from service.controller.start import _bring
from service.db.session import Database
from service.errors import DatasetInvalid, NotFound, TooLarge, Unavailable
from service.files import bucket as buckets
from service.files import contents
from service.files.service import delete, finish_deletions, open_content, store
from service.jobs.attempts import start_attempt
from service.jobs.repository import JobRepository
from service.jobs.service import cancel, submit
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from tests.s3_server import keys as _keys
from tests.service.conftest import add_file, make_model

ROW = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
LARGE = buckets._PART_BYTES * 2 + 17


@pytest.fixture
def settings(tmp_path: Path, database_url: str, empty_bucket: str) -> Settings:
    files_url = f"{empty_bucket}/plumbline/files"
    return Settings(home=tmp_path, database_url=database_url, secret="a secret", files_url=files_url)


def _half_sent() -> int:
    return len(boto3.client("s3").list_multipart_uploads(Bucket="team").get("Uploads", []))


def local(settings: Settings) -> list[str]:
    directory = Storage(settings.storage_root).files
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


async def chunks(content: bytes, *, breaks: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 100_000):
        yield content[start : start + 100_000]
    if breaks:
        raise ConnectionResetError


@pytest.mark.parametrize("size", [0, 100, LARGE])
async def test_what_is_stored_is_what_was_sent_and_the_disk_is_left_alone(
    database: Database, settings: Settings, size: int
) -> None:
    content = os.urandom(size)
    file = await store(database, settings, "ada", "pairs.jsonl", chunks(content))
    assert (file.bytes, file.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert (_keys(), local(settings)) == ([f"plumbline/files/{file.id}"], [])
    _, stored = await open_content(database, settings, "ada", file.id)
    with stored:
        assert await asyncio.to_thread(stored.read) == content
    await delete(database, settings, "ada", file.id)
    assert _keys() == []
    with pytest.raises(NotFound):
        await open_content(database, settings, "ada", file.id)


async def test_an_upload_that_breaks_off_or_is_too_large_leaves_nothing(database: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"max_upload_bytes": LARGE - 1})
    with pytest.raises(ConnectionResetError):
        await store(database, settings, "ada", "a", chunks(b"x" * (LARGE - 1), breaks=True))
    with pytest.raises(TooLarge):
        await store(database, settings, "ada", "a", chunks(b"x" * LARGE))
    assert (_keys(), _half_sent()) == ([], 0)


async def test_a_request_that_is_torn_down_leaves_nothing(database: Database, settings: Settings) -> None:
    sent = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * buckets._PART_BYTES
        sent.set()
        await asyncio.sleep(60)

    request = asyncio.create_task(store(database, settings, "ada", "a", slow()))
    await sent.wait()
    assert _half_sent() == 1
    request.cancel()
    await asyncio.wait([request])
    assert (request.cancelled(), _keys(), _half_sent()) == (True, [], 0)


async def test_memory_does_not_grow_with_the_file(database: Database, settings: Settings) -> None:
    async def much() -> AsyncIterator[bytes]:
        for _ in range(16 * buckets._PART_BYTES // 2**20):
            yield bytes(2**20)

    await store(database, settings, "ada", "a", chunks(b"x"))  # what is loaded once
    tracemalloc.start()
    await store(database, settings, "ada", "a", much())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * buckets._PART_BYTES


async def test_a_job_reads_a_copy_which_is_fetched_when_it_is_missing(database: Database, settings: Settings) -> None:
    file_id = await add_file(database, settings, ROW)
    model = make_model(settings.storage_root / "models" / "tiny")
    spec = AlignmentJob.model_validate({"model": str(model), "data": {"train": file_id}})
    job, _ = await submit(database, settings, "ada", spec)
    copy = Storage(settings.storage_root).files / file_id
    assert copy.read_bytes() == ROW
    copy.unlink()

    async with database.transaction() as session:
        attempt = await start_attempt(session, await JobRepository(session).get(job.id))
    client = connect(settings)
    await _bring(make_controller(settings, database, client), attempt)
    await client.aclose()
    assert copy.read_bytes() == ROW
    assert local(settings) == [file_id]


async def test_many_who_ask_for_a_file_at_once_fetch_one_copy_which_comes_although_one_leaves(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = await add_file(database, settings, ROW)
    fetch, fetched, begun, go = buckets.Bucket.fetch, [], asyncio.Event(), asyncio.Event()

    async def counted(store: buckets.Bucket, name: str, target: Path) -> None:
        fetched.append(name)
        begun.set()
        await go.wait()
        await fetch(store, name, target)

    monkeypatch.setattr(buckets.Bucket, "fetch", counted)
    asking = [asyncio.create_task(contents.local_path(settings, file_id)) for _ in range(3)]
    await begun.wait()
    asking[0].cancel()  # a client that hangs up
    await asyncio.wait(asking[:1])
    go.set()
    done = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(one, Path) for one in done] == [False, True, True]
    assert (len(fetched), local(settings)) == (1, [file_id])


async def test_a_job_on_a_file_that_has_left_the_store_is_refused(database: Database, settings: Settings) -> None:
    file_id = await add_file(database, settings, ROW)
    boto3.client("s3").delete_object(Bucket="team", Key=f"plumbline/files/{file_id}")
    model = make_model(settings.storage_root / "models" / "tiny")
    spec = AlignmentJob.model_validate({"model": str(model), "data": {"train": file_id}})
    with pytest.raises(DatasetInvalid, match="just been deleted"):
        await submit(database, settings, "ada", spec)
    assert local(settings) == []


async def test_a_copy_goes_when_no_job_needs_it_and_comes_back(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_here = await add_file(database, settings.model_copy(update={"files_url": None}), b"from before")
    file_id = await add_file(database, settings, ROW)
    model = make_model(settings.storage_root / "models" / "tiny")
    spec = AlignmentJob.model_validate({"model": str(model), "data": {"train": file_id}})
    job, _ = await submit(database, settings, "ada", spec)
    monkeypatch.setattr(contents, "_STALE_S", -10.0)

    assert await contents.sweep_unrecorded(database, settings) == 0
    await cancel(database, "ada", job.id)
    assert await contents.sweep_unrecorded(database, settings) == 1
    assert local(settings) == [kept_here]
    assert (await contents.local_path(settings, file_id)).read_bytes() == ROW
    _, stored = await open_content(database, settings, "ada", kept_here)
    with stored:
        assert stored.read() == b"from before"


async def test_what_a_killed_process_left_in_the_store_is_swept(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = await add_file(database, settings, ROW)
    client = boto3.client("s3")
    client.put_object(Bucket="team", Key="plumbline/files/file-" + "0" * 21, Body=b"without a row")
    client.put_object(Bucket="team", Key="plumbline/files/notes", Body=b"of somebody else")
    client.create_multipart_upload(Bucket="team", Key="plumbline/files/file-" + "1" * 21)
    monkeypatch.setattr(contents, "_STALE_S", -10.0)
    assert await contents.sweep_unrecorded(database, settings) == 1
    assert _keys() == [f"plumbline/files/{file_id}", "plumbline/files/notes"]
    assert _half_sent() == 0


async def test_a_store_that_does_not_answer_is_said_so_and_a_deletion_is_finished_later(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = await add_file(database, settings, ROW)
    healthy = buckets.bucket(str(settings.files_url))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = buckets.Bucket(str(settings.files_url))
    away._store = type(away._store)(use_listings_cache=False, skip_instance_cache=True)
    monkeypatch.setattr(contents, "bucket", lambda url: away)
    with pytest.raises(Unavailable):
        await add_file(database, settings, ROW)
    with pytest.raises(Unavailable):
        await delete(database, settings, "ada", file_id)
    with pytest.raises(NotFound):  # already, for everyone
        await open_content(database, settings, "ada", file_id)
    monkeypatch.setattr(contents, "bucket", lambda url: healthy)
    assert await finish_deletions(database, settings) == 1
    assert _keys_of(healthy) == set()


def _keys_of(store: buckets.Bucket) -> set[str]:
    return {path.rpartition("/")[2] for path in store._store.find("team/plumbline/files/")}
