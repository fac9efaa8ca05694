"""A create that is sent again, as the package does after a lost answer, makes one job."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from starlette.types import ASGIApp, Receive, Scope, Send

from api.app import create_app
from service.db.session import Database
from service.projects import service as projects
from service.projects.quota import Quota
from service.settings import Settings
from tests.api.conftest import PAIR, key_of, serve
from tests.api.openai.conftest import package


class LosesAnswers:
    """Passes requests on, and in place of the first two answers to a create breaks the connection or says 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self.lost = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/fine_tuning/jobs" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        if self.lost == 2:
            return await self._app(scope, receive, send)
        self.lost += 1

        async def nowhere(_message: object) -> None:
            pass

        await self._app(scope, receive, nowhere)
        if self.lost == 2:
            await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
        return None


async def test_the_package_gets_the_job_whose_answer_was_lost(
    settings: Settings, ada: dict[str, str], openai: AsyncOpenAI, pairs: str, model: str
) -> None:
    losing = LosesAnswers(create_app(settings))
    with contextmanager(serve)(losing) as server:
        async with package(server, ada, max_retries=2) as client:
            job = await client.fine_tuning.jobs.create(model=model, training_file=pairs, method={"type": "dpo"})
    assert losing.lost == 2
    assert [one.id async for one in openai.fine_tuning.jobs.list()] == [job.id]


@pytest.fixture
async def replicas(settings: Settings, ada: dict[str, str]) -> AsyncIterator[list[httpx.AsyncClient]]:
    apps = [create_app(settings) for _ in range(2)]
    clients = [
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=ada) for app in apps
    ]
    async with apps[0].router.lifespan_context(apps[0]), apps[1].router.lifespan_context(apps[1]):
        yield clients
    for client in clients:
        await client.aclose()


async def create(client: httpx.AsyncClient, body: dict[str, str], retry: int = 0) -> httpx.Response:
    return await client.post("/v1/fine_tuning/jobs", json=body, headers={"x-stainless-retry-count": str(retry)})


async def test_a_retry_that_overtakes_its_first_request_on_another_replica_makes_no_second_job(
    replicas: list[httpx.AsyncClient], pairs: str, model: str
) -> None:
    for turn in range(5):
        body = {"model": model, "training_file": pairs, "suffix": str(turn)}
        answers = await asyncio.gather(
            create(replicas[turn % 2], body), create(replicas[1 - turn % 2], body, 1), create(replicas[0], body, 2)
        )
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 2
    assert len((await replicas[0].get("/v1/jobs")).json()["data"]) == 5


async def test_the_same_request_on_purpose_makes_another_job(
    replicas: list[httpx.AsyncClient], pairs: str, model: str
) -> None:
    body = {"model": model, "training_file": pairs}
    at_once = await asyncio.gather(*(create(replicas[place % 2], body) for place in range(4)))
    later = await create(replicas[0], body)
    again = await create(replicas[1], body, 1)
    assert len({answer.json()["id"] for answer in (*at_once, later)}) == 5
    assert again.json()["id"] == later.json()["id"]
    other = await create(replicas[1], body | {"suffix": "other"}, 1)
    assert other.json()["id"] != later.json()["id"]


async def test_a_retry_with_another_key_of_the_project_is_another_wish(
    replicas: list[httpx.AsyncClient], database: Database, pairs: str, model: str
) -> None:
    body = {"model": model, "training_file": pairs}
    adas = await create(replicas[0], body)
    replicas[1].headers.update(await key_of(database, "ada"))
    theirs = await create(replicas[1], body, 1)
    assert theirs.json()["id"] != adas.json()["id"]
    assert (await create(replicas[1], body, 2)).json()["id"] == theirs.json()["id"]
    assert (await create(replicas[0], body, 1)).json()["id"] == adas.json()["id"]


async def test_a_retry_after_the_job_was_cancelled_or_deleted_makes_another_job(
    replicas: list[httpx.AsyncClient], pairs: str, model: str
) -> None:
    body = {"model": model, "training_file": pairs}
    first = (await create(replicas[0], body)).json()["id"]
    await replicas[0].post(f"/v1/fine_tuning/jobs/{first}/cancel")
    second = (await create(replicas[1], body, 1)).json()["id"]
    assert second != first
    assert (await create(replicas[0], body, 2)).json()["id"] == second
    await replicas[0].post(f"/v1/fine_tuning/jobs/{second}/cancel")
    assert (await replicas[0].delete(f"/v1/jobs/{second}")).status_code == 200
    assert (await create(replicas[1], body, 3)).json()["id"] not in (first, second)


async def test_a_retry_of_a_create_that_failed_is_tried(
    replicas: list[httpx.AsyncClient], settings: Settings, pairs: str, model: str
) -> None:
    body = {"model": model, "training_file": pairs}
    config = settings.storage_root / "models" / "tiny" / "config.json"
    config.rename(config.with_suffix(".away"))
    assert (await create(replicas[0], body)).status_code == 400
    config.with_suffix(".away").rename(config)
    assert (await create(replicas[0], body, 1)).status_code == 200


PACKAGE = {"x-stainless-lang": "python"}
PAIRS = {"file": ("pairs.jsonl", PAIR)}
UPLOAD = {"bytes": 9, "filename": "big.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}


async def make(client: httpx.AsyncClient, path: str, retry: int = 0) -> httpx.Response:
    """A file or an upload, as the package asks for it."""
    body: dict[str, Any] = {"files": PAIRS} if path == "/v1/files" else {"json": UPLOAD}
    return await client.post(path, headers=PACKAGE | {"x-stainless-retry-count": str(retry)}, **body)


@pytest.mark.parametrize("path", ["/v1/files", "/v1/uploads"])
async def test_a_file_or_an_upload_whose_answer_was_lost_is_made_once(
    replicas: list[httpx.AsyncClient], database: Database, settings: Settings, path: str
) -> None:
    first, same, third = await asyncio.gather(
        make(replicas[0], path), make(replicas[1], path, 1), make(replicas[0], path, 2)
    )
    assert len({answer.json()["id"] for answer in (first, same, third)}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in (first, same, third)) == 2
    on_purpose = await make(replicas[0], path)
    assert on_purpose.json()["id"] != first.json()["id"]
    replicas[1].headers.update(await key_of(database, "ada"))
    theirs = await make(replicas[1], path, 1)
    assert theirs.json()["id"] not in (first.json()["id"], on_purpose.json()["id"])
    if path == "/v1/files":
        assert len(list((settings.storage_root / "files").iterdir())) == 3


@pytest.mark.parametrize("path", ["/v1/files", "/v1/uploads"])
async def test_a_retry_after_the_file_or_upload_was_given_up_makes_another(
    replicas: list[httpx.AsyncClient], path: str
) -> None:
    first = (await make(replicas[0], path)).json()["id"]
    if path == "/v1/files":
        gone = await replicas[0].delete(f"/v1/files/{first}")
    else:
        gone = await replicas[0].post(f"/v1/uploads/{first}/cancel")
    assert gone.status_code == 200
    again = (await make(replicas[1], path, 1)).json()["id"]
    assert again != first
    assert (await make(replicas[0], path, 2)).json()["id"] == again


async def test_a_retry_gets_the_file_that_took_the_last_of_the_quota(
    replicas: list[httpx.AsyncClient], database: Database
) -> None:
    async with database.transaction() as session:
        await projects.set_quota(session, "ada", Quota(max_storage_bytes=len(PAIR)))
    first = await make(replicas[0], "/v1/files")
    assert (await make(replicas[1], "/v1/files", 1)).json()["id"] == first.json()["id"]
    assert (await make(replicas[1], "/v1/files")).status_code == 403


async def test_a_key_of_the_callers_own_counts_alone(replicas: list[httpx.AsyncClient], pairs: str, model: str) -> None:
    body = {"model": model, "training_file": pairs}
    key = {"Idempotency-Key": hashlib.sha256(b"mine").hexdigest()}
    first = await replicas[0].post("/v1/fine_tuning/jobs", json=body, headers=key)
    again = await replicas[1].post("/v1/fine_tuning/jobs", json=body, headers=key)
    assert again.json()["id"] == first.json()["id"]
    conflict = await replicas[1].post("/v1/fine_tuning/jobs", json=body | {"suffix": "x"}, headers=key)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "idempotency_conflict")
