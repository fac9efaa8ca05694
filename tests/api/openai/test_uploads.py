import asyncio
import hashlib
import os
from datetime import timedelta
from pathlib import Path

import httpx
import openai as package_errors
import pytest
from openai import AsyncOpenAI
from sqlalchemy import update

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Upload
from service.settings import Settings
from service.uploads import service as uploads
from service.uploads.sweep import sweep
from tests.api.conftest import Server
from tests.api.openai.conftest import CHAT_ROW, package

CONTENT = b"".join(CHAT_ROW.replace(b"Hello", b"Hello %d" % number) for number in range(100))
PART = 3000


async def begin(openai: AsyncOpenAI, size: int = len(CONTENT)) -> str:
    upload = await openai.uploads.create(
        bytes=size, filename="chats.jsonl", mime_type="text/jsonl", purpose="fine-tune"
    )
    assert upload.status == "pending"
    return upload.id


async def send(openai: AsyncOpenAI, upload_id: str, content: bytes = CONTENT) -> list[str]:
    """The parts' IDs, in order."""
    pieces = [content[start : start + PART] for start in range(0, len(content), PART)]
    return [(await openai.uploads.parts.create(upload_id, data=piece)).id for piece in pieces]


def left(settings: Settings) -> list[Path]:
    return list((settings.storage_root / "uploads").glob("*"))


async def expire(database: Database, ago: timedelta = timedelta(seconds=1)) -> None:
    async with database.transaction() as session:
        await session.execute(update(Upload).values(expires_at=utc_now() - ago))


async def test_a_file_in_parts_becomes_a_file_as_it_was(
    openai: AsyncOpenAI, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(CONTENT)
    upload = await openai.uploads.upload_file_chunked(
        file=path,
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=PART,
        md5=hashlib.md5(CONTENT).hexdigest(),
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert (upload.file.filename, upload.file.bytes) == ("chats.jsonl", len(CONTENT))
    assert (await openai.files.content(upload.file.id)).read() == CONTENT
    assert (await openai.files.retrieve(upload.file.id)) == upload.file
    assert left(settings) == []


async def test_parts_are_joined_in_the_order_of_the_completion(openai: AsyncOpenAI) -> None:
    upload_id = await begin(openai, 12)
    b, a = [(await openai.uploads.parts.create(upload_id, data=data)).id for data in (b"bbbb", b"aaaa")]
    upload = await openai.uploads.complete(upload_id, part_ids=[a, b, a])
    assert upload.file is not None
    assert (await openai.files.content(upload.file.id)).read() == b"aaaabbbbaaaa"


async def test_the_same_bytes_again_are_the_same_part(openai: AsyncOpenAI, settings: Settings) -> None:
    upload_id = await begin(openai)
    made = await asyncio.gather(*(openai.uploads.parts.create(upload_id, data=b"x" * 1000) for _ in range(4)))
    assert len({part.id for part in made}) == 1
    assert [path.name for path in left(settings)] == [f"{upload_id}.{made[0].id}"]


async def test_a_repeated_completion_gets_the_same_file(openai: AsyncOpenAI, settings: Settings) -> None:
    upload_id = await begin(openai)
    parts = await send(openai, upload_id)
    done = await asyncio.gather(*(openai.uploads.complete(upload_id, part_ids=parts) for _ in range(3)))
    done.append(await openai.uploads.complete(upload_id, part_ids=parts))
    assert len({upload.file.id for upload in done if upload.file}) == 1
    assert len([one async for one in openai.files.list()]) == 1
    assert len(list((settings.storage_root / "files").iterdir())) == 1
    with pytest.raises(package_errors.ConflictError, match="other parts"):
        await openai.uploads.complete(upload_id, part_ids=parts[::-1])
    assert done[0].file is not None
    await openai.files.delete(done[0].file.id)
    again = await openai.uploads.complete(upload_id, part_ids=parts)
    assert (again.status, again.file) == ("completed", None)


async def test_a_completion_that_does_not_add_up_can_be_corrected(openai: AsyncOpenAI, settings: Settings) -> None:
    upload_id = await begin(openai)
    parts = await send(openai, upload_id)
    for part_ids, md5, param in (
        (parts[:-1], None, "part_ids"),
        ([*parts, parts[0]], None, "part_ids"),
        ([*parts[:-1], "part-" + "0" * 21], None, "part_ids"),
        (parts, "0" * 32, "md5"),
        (parts, "no md5", "md5"),
    ):
        with pytest.raises(package_errors.BadRequestError) as refused:
            await openai.uploads.complete(upload_id, part_ids=part_ids, **({"md5": md5} if md5 else {}))
        assert refused.value.param == param
    assert [one async for one in openai.files.list()] == []
    assert list((settings.storage_root / "files").glob("*")) == []
    upload = await openai.uploads.complete(upload_id, part_ids=parts, md5=hashlib.md5(CONTENT).hexdigest().upper())
    assert upload.status == "completed"


async def test_a_cancelled_upload_leaves_nothing_and_takes_nothing(openai: AsyncOpenAI, settings: Settings) -> None:
    upload_id = await begin(openai)
    parts = await send(openai, upload_id)
    for _ in range(2):
        assert (await openai.uploads.cancel(upload_id)).status == "cancelled"
    assert left(settings) == []
    with pytest.raises(package_errors.ConflictError, match="is cancelled"):
        await openai.uploads.parts.create(upload_id, data=b"x")
    with pytest.raises(package_errors.ConflictError, match="is cancelled"):
        await openai.uploads.complete(upload_id, part_ids=parts)
    assert left(settings) == []


async def test_a_completed_upload_takes_no_part_and_is_not_cancelled(openai: AsyncOpenAI) -> None:
    upload_id = await begin(openai)
    await openai.uploads.complete(upload_id, part_ids=await send(openai, upload_id))
    with pytest.raises(package_errors.ConflictError, match="is completed"):
        await openai.uploads.parts.create(upload_id, data=b"x")
    with pytest.raises(package_errors.ConflictError, match="is completed"):
        await openai.uploads.cancel(upload_id)


async def test_an_upload_that_expires_is_swept_and_then_forgotten(
    openai: AsyncOpenAI, database: Database, settings: Settings
) -> None:
    expired = await begin(openai)
    parts = await send(openai, expired)
    await expire(database)
    pending = await begin(openai)
    await send(openai, pending)
    with pytest.raises(package_errors.ConflictError, match="is expired"):
        await openai.uploads.complete(expired, part_ids=parts)

    assert await sweep(database, settings) == 1
    assert {path.name.partition(".")[0] for path in left(settings)} == {pending}
    await expire(database, timedelta(days=8))
    await sweep(database, settings)
    assert left(settings) == []
    with pytest.raises(package_errors.NotFoundError):
        await openai.uploads.cancel(expired)


async def test_what_a_killed_process_left_is_seen_by_nobody_and_swept(
    openai: AsyncOpenAI, database: Database, settings: Settings
) -> None:
    upload_id = await begin(openai)
    kept = (await openai.uploads.parts.create(upload_id, data=b"x")).id
    (settings.storage_root / "uploads" / f"{upload_id}.part-{'0' * 21}.part").write_bytes(b"half a part")
    (settings.storage_root / "uploads" / f"upload-{'0' * 21}.part-{'1' * 21}").write_bytes(b"of a rolled back one")
    unrecorded = settings.storage_root / "files" / f"file-{'0' * 21}"
    recorded = (await openai.files.create(file=CHAT_ROW, purpose="fine-tune")).id
    unrecorded.write_bytes(b"joined, and killed before the commit")
    for path in unrecorded.parent.iterdir():
        os.utime(path, (1, 1))

    assert await sweep(database, settings) == 1
    assert sorted(path.name.partition(".")[0] for path in left(settings)) == [upload_id, upload_id]
    assert [path.name for path in unrecorded.parent.iterdir()] == [recorded]
    with pytest.raises(package_errors.BadRequestError):
        await openai.uploads.complete(upload_id, part_ids=[kept, "part-" + "0" * 21])
    await openai.uploads.cancel(upload_id)
    assert left(settings) == []


async def test_a_part_that_breaks_off_leaves_nothing(
    client: httpx.AsyncClient, openai: AsyncOpenAI, settings: Settings
) -> None:
    upload_id = await begin(openai)
    body = b'--b\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\nhalf of it'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await client.post(f"/v1/uploads/{upload_id}/parts", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "upload_incomplete")
    wrong = await client.post(f"/v1/uploads/{upload_id}/parts", files={"file": b"x"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "file")
    assert left(settings) == []


async def test_limits_are_refused_and_leave_nothing(
    openai: AsyncOpenAI, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_large = (package_errors.APIStatusError, "413|at most|announced")
    with pytest.raises(too_large[0], match=too_large[1]):
        await begin(openai, settings.max_upload_bytes + 1)
    for wrong in ({"bytes": 0}, {"bytes": True}, {"purpose": "batch"}, {"expires_after": {"seconds": 1}}):
        with pytest.raises(package_errors.BadRequestError):
            await openai.post("/uploads", body=_create() | wrong, cast_to=dict)
    upload_id = await begin(openai, 10)
    with pytest.raises(package_errors.APIStatusError, match="no more than the 10"):
        await openai.uploads.parts.create(upload_id, data=b"x" * 11)
    with pytest.raises(package_errors.BadRequestError, match="empty"):
        await openai.uploads.parts.create(upload_id, data=b"")
    for data in (b"a" * 10, b"b" * 10):
        await openai.uploads.parts.create(upload_id, data=data)
    with pytest.raises(package_errors.APIStatusError, match="2 times"):
        await openai.uploads.parts.create(upload_id, data=b"c")
    assert len(left(settings)) == 2
    monkeypatch.setattr(uploads, "MAX_PENDING", 1)
    with pytest.raises(package_errors.ConflictError, match="pending"):
        await begin(openai)


async def test_another_projects_upload_is_not_there(
    openai: AsyncOpenAI, server: Server, bob: dict[str, str], settings: Settings
) -> None:
    upload_id = await begin(openai)
    parts = await send(openai, upload_id)
    async with package(server, bob) as theirs:
        for call in (
            theirs.uploads.cancel(upload_id),
            theirs.uploads.complete(upload_id, part_ids=parts),
            theirs.uploads.parts.create(upload_id, data=b"x"),
            theirs.uploads.cancel("upload-1"),
        ):
            with pytest.raises(package_errors.NotFoundError):
                await call
    assert len(left(settings)) == len(parts)


def _create() -> dict[str, object]:
    return {"bytes": 1, "filename": "a", "mime_type": "text/jsonl", "purpose": "fine-tune"}
