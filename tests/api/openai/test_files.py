import httpx
import openai as package_errors
import pytest
from openai import AsyncOpenAI

from service.db.session import Database
from service.jobs import attempts
from service.jobs.repository import JobRepository
from service.jobs.service import cancel
from service.settings import Settings
from tests.api.conftest import Server
from tests.api.openai.conftest import CHAT_ROW, DPO_ROW, package

NOBODYS = "file-" + "0" * 21


async def test_a_file_is_uploaded_read_back_and_deleted(openai: AsyncOpenAI, settings: Settings) -> None:
    file = await openai.files.create(file=("päirs.jsonl", DPO_ROW), purpose="fine-tune")

    assert (file.object, file.purpose, file.status, file.bytes) == ("file", "fine-tune", "processed", len(DPO_ROW))
    assert file.filename == "päirs.jsonl"
    assert isinstance(file.created_at, int)
    assert await openai.files.retrieve(file.id) == file
    assert [one async for one in openai.files.list()] == [file]
    assert (await openai.files.wait_for_processing(file.id)).id == file.id
    assert (await openai.files.content(file.id)).read() == DPO_ROW
    deleted = await openai.files.delete(file.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (file.id, True, "file")
    assert [one async for one in openai.files.list()] == []
    assert list((settings.storage_root / "files").iterdir()) == []
    for call in (openai.files.retrieve, openai.files.content, openai.files.delete):
        with pytest.raises(package_errors.NotFoundError):
            await call(file.id)


async def test_pages_hold_every_file_once_in_either_order(openai: AsyncOpenAI) -> None:
    made = [(await openai.files.create(file=CHAT_ROW, purpose="fine-tune")).id for _ in range(5)]
    assert [file.id async for file in openai.files.list(limit=2)] == sorted(made, reverse=True)
    assert [file.id async for file in openai.files.list(limit=2, order="asc")] == sorted(made)
    assert len((await openai.files.list()).data) == 5
    assert [file.id async for file in openai.files.list(purpose="fine-tune")] == sorted(made, reverse=True)
    assert [file.id async for file in openai.files.list(purpose="batch")] == []


async def test_another_owners_file_is_not_there(
    openai: AsyncOpenAI, server: Server, bob: dict[str, str], pairs: str
) -> None:
    async with package(server, bob) as theirs:
        for file_id in (pairs, NOBODYS, "file-abc"):
            for call in (theirs.files.retrieve, theirs.files.content, theirs.files.delete):
                with pytest.raises(package_errors.NotFoundError) as absent:
                    await call(file_id)
                assert absent.value.code == "not_found"
    assert (await openai.files.content(pairs)).read() == DPO_ROW


@pytest.mark.parametrize("purpose_first", [True, False])
async def test_a_file_for_another_purpose_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, openai: AsyncOpenAI, settings: Settings, purpose_first: bool
) -> None:
    parts = [("purpose", (None, "batch")), ("file", ("a.jsonl", CHAT_ROW))]
    answer = await client.post(
        "/v1/files", files=parts if purpose_first else parts[::-1], headers={"x-stainless-lang": "python"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "purpose"
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.files.create(file=CHAT_ROW, purpose="batch")
    assert "fine-tune" in refused.value.message
    assert list((settings.storage_root / "files").glob("*")) == []


async def test_what_would_be_ignored_is_refused(openai: AsyncOpenAI) -> None:
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.files.create(
            file=CHAT_ROW, purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
        )
    assert "expires_after" in refused.value.message


async def test_a_file_that_a_live_job_needs_is_not_deleted(
    openai: AsyncOpenAI, database: Database, pairs: str, model: str
) -> None:
    job = await openai.fine_tuning.jobs.create(model=model, training_file=pairs, method={"type": "dpo"})
    async with database.transaction() as session:
        await attempts.start_attempt(session, await JobRepository(session).get(job.id))
    for _ in range(2):
        with pytest.raises(package_errors.ConflictError) as refused:
            await openai.files.delete(pairs)
        assert job.id in refused.value.message
        await cancel(database, "ada", job.id)  # asked for, not done
    async with database.transaction() as session:
        await attempts.finish_leaving(session, await JobRepository(session).get(job.id), "The cluster is clean.")
    assert (await openai.files.delete(pairs)).deleted
    with pytest.raises(package_errors.BadRequestError) as gone:
        await openai.fine_tuning.jobs.create(model=model, training_file=pairs, method={"type": "dpo"})
    assert gone.value.param == "training_file"
