"""Looking at an upload before there is a job."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.db.session import Database
from service.errors import DatasetInvalid, PreviewUnavailable
from service.jobs import admission
from service.previews import service
from service.previews.request import PreviewRequest
from service.previews.service import Previews
from service.settings import Settings
from service.spec import DataSpec
from tests.api.conftest import PAIR, Server, problem, until
from tests.models import make_tokenizer


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"preview_timeout_s": 300})  # patient with a machine that has much else to do


async def upload(client: httpx.AsyncClient, content: bytes = PAIR) -> str:
    answer = await client.post("/v1/files", files={"file": ("pairs.jsonl", content)})
    file_id: str = answer.json()["id"]
    return file_id


def with_tokenizer(settings: Settings) -> str:
    directory = settings.storage_root / "models" / "chat"
    make_tokenizer().save_pretrained(directory)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_text("w")
    return str(directory)


async def look(client: httpx.AsyncClient, file_id: str, **more: Any) -> httpx.Response:
    return await client.post("/v1/data-previews", json={"data": {"train": file_id}} | more)


async def test_an_upload_is_shown_as_the_model_will_see_it(client: httpx.AsyncClient, settings: Settings) -> None:
    bad = b'{"prompt": "q", "chosen": "same", "rejected": "same"}\n'
    answer = await look(client, await upload(client, PAIR + bad), model=with_tokenizer(settings))
    assert answer.status_code == 200, answer.text
    seen = answer.json()
    assert seen["complete"]
    assert (seen["report"]["unit"], seen["report"]["used"], seen["report"]["bad"]) == ("tokens", 1, 1)
    (row,) = seen["samples"]
    assert "".join(token["text"] for token in row["answers"][0]["tokens"]) == "Good day.<|im_end|>"


async def test_a_model_with_a_broken_tokenizer_is_a_problem_and_no_crash(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await look(client, body["data"]["train"], model=body["model"])
    assert problem(answer, 422, "preview_failed")["reason"] == "tokenizer_missing"


@pytest.mark.parametrize("name", ["https://example.org/rows.jsonl", "hf:team/rows"])
async def test_rows_that_the_job_fetches_cannot_be_looked_at_before(client: httpx.AsyncClient, name: str) -> None:
    assert "fetched by the job" in problem(await look(client, name), 422, "dataset_invalid")["detail"]


async def test_losses_that_need_different_rows_are_refused_as_in_a_job(client: httpx.AsyncClient) -> None:
    answer = await look(client, await upload(client), losses=[{"type": "sigmoid"}, {"type": "kto"}])
    assert "need different rows" in problem(answer, 422, "invalid_request")["detail"]


async def test_the_process_is_told_no_secret(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLUMBLINE_SECRET", "planted")
    dumped = tmp_path / "environment"
    script = f"import json, os; json.dump(dict(os.environ), open({str(dumped)!r}, 'w')); exit(1)"
    monkeypatch.setattr(service, "_COMMAND", (service._COMMAND[0], "-c", script))
    problem(await look(client, await upload(client)), 503, "preview_unavailable")
    told = json.loads(dumped.read_text())
    assert "PATH" in told
    assert not [name for name, value in told.items() if name.startswith("PLUMBLINE") or value == "planted"]


async def test_an_api_without_tokenizers_says_what_is_missing(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_COMMAND", (service._COMMAND[0], "-c", "import no_such_package"))
    answer = await look(client, await upload(client))
    assert "`tokens`" in problem(answer, 503, "preview_unavailable")["detail"]


async def test_a_look_that_nobody_waits_for_any_more_is_ended(
    server: Server, client: httpx.AsyncClient, ada: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its process with it."""
    monkeypatch.setattr(service, "_COMMAND", (service._COMMAND[0], "-c", "import time; time.sleep(600)"))
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def noted(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        started.append(await start(*args, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    body = {"data": {"train": await upload(client)}}
    async with httpx.AsyncClient(base_url=server.url, headers=ada, timeout=60) as other:
        looking = asyncio.create_task(other.post("/v1/data-previews", json=body))
        await until(lambda: bool(started))
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await until(lambda: started[0].returncode is not None)


async def test_a_look_that_takes_too_long_is_ended(
    client: httpx.AsyncClient, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_COMMAND", (service._COMMAND[0], "-c", "import time; time.sleep(600)"))
    hurried = Previews(settings.model_copy(update={"preview_timeout_s": 0.5}))
    request = PreviewRequest(data=DataSpec(train=await upload(client)))
    with pytest.raises(PreviewUnavailable, match=r"0\.5 s"):
        await hurried.preview(database, "ada", request)


async def test_a_file_that_is_long_in_coming_is_part_of_the_look(
    client: httpx.AsyncClient, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def comes_never(*_: Any) -> Path:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(admission, "local_path", comes_never)
    hurried = Previews(settings.model_copy(update={"preview_timeout_s": 0.5}))
    request = PreviewRequest(data=DataSpec(train=await upload(client)))
    async with asyncio.timeout(60):
        with pytest.raises(PreviewUnavailable, match=r"0\.5 s"):
            await hurried.preview(database, "ada", request)


async def test_a_project_that_looks_at_many_files_leaves_another_one_its_turn(
    client: httpx.AsyncClient, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_COMMAND", (service._COMMAND[0], "-c", "import time; time.sleep(600)"))
    previews = Previews(settings)
    request = PreviewRequest(data=DataSpec(train=await upload(client)))
    looking = [asyncio.create_task(previews.preview(database, "ada", request)) for _ in range(settings.max_previews)]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(60):
        with pytest.raises(DatasetInvalid, match="There is no file"):  # it was looked for
            await previews.preview(database, "bob", request)
    for one in looking:
        one.cancel()
    await asyncio.gather(*looking, return_exceptions=True)
