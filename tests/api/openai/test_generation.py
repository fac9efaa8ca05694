"""The package asks, and a small OpenAI-style server stands for the engines; vLLM itself is asked end to end."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import openai as package_errors
import pytest
from fastapi import FastAPI, Request
from openai import AsyncOpenAI
from starlette.responses import JSONResponse, Response

from api.sse import EventStream
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.jobs.states import DeploymentState, JobState
from service.settings import Settings
from tests.api.conftest import Server, serve, until
from tests.api.openai.conftest import package
from tests.service.conftest import add_job, deploy, make_model

HELLO: Any = [{"role": "user", "content": "Hello"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


class Engine:
    """Answers "good day"; what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.clients: set[Any] = set()  # addresses: one for each connection
        self.failing: Response | None = None
        self.endless = False
        self.busy = 0
        self.app = FastAPI()
        self.app.add_api_route("/{job_id}/v1/{path:path}", self.answer, methods=["POST"], response_model=None)

    async def answer(self, request: Request, job_id: str, path: str) -> Response:
        body = await request.json()
        self.asked.append((job_id, path, body))
        self.clients.add(request.client)
        if self.failing:
            return self.failing
        if body.get("stream"):
            return EventStream(self.chunks(body["model"], chat=path == "chat/completions"))
        if self.endless:
            await self.until_gone(request)
        text = {"message": {"role": "assistant", "content": "good day"}} if "messages" in body else {"text": "good day"}
        choice = {"index": 0, "finish_reason": "stop", "logprobs": None} | text
        whole = {"id": "x-1", "created": 1, "model": body["model"], "choices": [choice], "usage": USAGE}
        kind = "chat.completion" if "messages" in body else "text_completion"
        return JSONResponse(whole | {"object": kind})

    async def until_gone(self, request: Request) -> None:
        self.busy += 1
        while (await request.receive())["type"] != "http.disconnect":
            continue
        self.busy -= 1

    async def chunks(self, model: str, *, chat: bool) -> AsyncGenerator[bytes, None]:
        self.busy += 1
        try:
            for word in ("good ", "day"):
                yield self.chunk(model, [{"index": 0, "delta": {"content": word}, "text": word}])
            while self.endless:
                await asyncio.sleep(0.01)
                yield self.chunk(model, [{"index": 0, "delta": {"content": "on "}, "text": "on "}])
            yield self.chunk(model, [{"index": 0, "delta": {}, "text": "", "finish_reason": "stop"}])
            yield self.chunk(model, [], usage=USAGE)
            yield b"data: [DONE]\n\n"
        finally:
            self.busy -= 1

    def chunk(self, model: str, choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {"id": "x-1", "created": 1, "object": "x", "model": model, "choices": choices}
        return f"data: {json.dumps(chunk | more)}\n\n".encode()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def settings(settings: Settings, engine: Engine) -> Iterator[Settings]:
    for server in serve(engine.app):
        yield settings.model_copy(update={"serve_url": server.url})


@pytest.fixture
async def job(database: Database, settings: Settings) -> Job:
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
        await deploy(session, job)
    model = make_model(settings.storage_root / "models" / job.id)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    return job


@pytest.mark.parametrize(("name", "side"), [("job:{}", "aligned"), ("job:{}:base", "base")])
async def test_a_chat_is_answered_by_the_model_that_is_named(
    openai: AsyncOpenAI, job: Job, engine: Engine, name: str, side: str
) -> None:
    model = name.format(job.id)
    answer = await openai.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *HELLO],
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=24,
        stop=["\n"],
        n=1,
        seed=3,
        logprobs=True,
        top_logprobs=2,
        response_format={"type": "json_object"},
        extra_body={"top_k": 5},
    )
    assert (answer.model, answer.choices[0].message.content) == (model, "good day")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    [(asked, path, body)] = engine.asked
    assert (asked, path, body.pop("model")) == (job.id, "chat/completions", side)
    assert body == {
        "messages": [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *HELLO],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 24,
        "stop": ["\n"],
        "n": 1,
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {"type": "json_object"},
        "top_k": 5,
    }


async def test_a_streamed_chat_comes_chunk_by_chunk_with_its_usage(openai: AsyncOpenAI, job: Job) -> None:
    model = f"job:{job.id}"
    stream = await openai.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {model}
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == ["good ", "day", None]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 9


async def test_texts_are_gone_on_from_whole_and_streamed(openai: AsyncOpenAI, job: Job, engine: Engine) -> None:
    model = f"job:{job.id}:base"
    answer = await openai.completions.create(model=model, prompt="Hello", max_tokens=5, echo=False, logprobs=1)
    assert (answer.model, answer.choices[0].text) == (model, "good day")
    stream = await openai.completions.create(model=model, prompt=[1, 2], stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices]) == "good day"
    assert [(path, body["prompt"]) for _, path, body in engine.asked] == [
        ("completions", "Hello"),
        ("completions", [1, 2]),
    ]


async def test_one_answer_after_another_needs_one_connection_to_the_engine(
    openai: AsyncOpenAI, job: Job, engine: Engine
) -> None:
    for _ in range(3):
        stream = await openai.completions.create(model=f"job:{job.id}", prompt="Hello", stream=True)
        assert [chunk async for chunk in stream]
    await openai.completions.create(model=f"job:{job.id}", prompt="Hello")
    assert (len(engine.asked), len(engine.clients)) == (4, 1)


async def test_the_base_is_listed_while_it_is_served(openai: AsyncOpenAI, job: Job, database: Database) -> None:
    async with database.transaction() as session:
        [deployment] = await deployments.all_wanted(session)
        stored = await session.get_one(Job, job.id)
        stored.finished_at = stored.created_at
    base = f"job:{job.id}:base"
    assert [model.id async for model in openai.models.list()] == [f"job:{job.id}", base]
    assert (await openai.models.retrieve(base)).id == base
    with pytest.raises(package_errors.ConflictError):
        await openai.models.delete(base)
    async with database.transaction() as session:
        await deployments.set_state(session, deployment, DeploymentState.REMOVING)
    assert [model.id async for model in openai.models.list()] == [f"job:{job.id}"]
    with pytest.raises(package_errors.NotFoundError):
        await openai.models.retrieve(base)


async def test_a_model_that_is_not_there_or_not_yours_is_not_found(
    openai: AsyncOpenAI, server: Server, bob: dict[str, str], job: Job, engine: Engine
) -> None:
    async with package(server, bob) as theirs:
        for client, model in ((theirs, f"job:{job.id}"), (openai, "gpt-4o-mini"), (openai, f"job:{job.id}:other")):
            with pytest.raises(package_errors.NotFoundError):
                await client.chat.completions.create(model=model, messages=HELLO)
            with pytest.raises(package_errors.NotFoundError):
                await client.completions.create(model=model, prompt="x", stream=True)
    assert engine.asked == []


async def test_a_model_that_is_not_deployed_says_what_to_do(
    openai: AsyncOpenAI, database: Database, job: Job, engine: Engine
) -> None:
    async def ask() -> None:
        await openai.chat.completions.create(model=f"job:{job.id}", messages=HELLO)

    async with database.transaction() as session:
        [deployment] = await deployments.all_wanted(session)
        deployment.start_s = None  # as if they had never been up
        await session.flush()
        await deployments.set_state(session, deployment, DeploymentState.DEPLOYING)
    with pytest.raises(package_errors.InternalServerError, match="being deployed") as later:
        await ask()
    assert (later.value.status_code, later.value.response.headers["retry-after"]) == (503, "2")
    async with database.transaction() as session:
        await deployments.set_state(session, deployment, DeploymentState.FAILED)
    with pytest.raises(package_errors.ConflictError, match="tries again") as refused:
        await ask()
    assert refused.value.code == "model_not_deployed"
    async with database.transaction() as session:
        await deployments.set_state(session, deployment, DeploymentState.REMOVING)
        await deployments.removed(session, deployment)
    with pytest.raises(package_errors.ConflictError, match=f"POST /v1/jobs/{job.id}/deployment deploys"):
        await ask()
    assert engine.asked == []


async def test_what_the_engine_refuses_is_a_bad_request_in_its_words(
    openai: AsyncOpenAI, job: Job, engine: Engine
) -> None:
    engine.failing = JSONResponse({"error": {"message": "too many tokens", "type": "x", "code": 400}}, 400)
    for stream in (False, True):
        with pytest.raises(package_errors.BadRequestError, match="too many tokens"):
            await openai.chat.completions.create(model=f"job:{job.id}", messages=HELLO, stream=stream)


@pytest.mark.parametrize("failing", [Response("", 500), Response("not json"), Response("[]")])
async def test_an_engine_that_does_not_answer_properly_is_unavailable(
    openai: AsyncOpenAI, job: Job, engine: Engine, failing: Response
) -> None:
    engine.failing = failing
    for stream in (False, True):
        with pytest.raises(package_errors.InternalServerError) as unavailable:
            await openai.chat.completions.create(model=f"job:{job.id}", messages=HELLO, stream=stream)
        assert unavailable.value.code == "serving_unavailable"


async def test_a_stream_that_breaks_off_ends_in_an_error(openai: AsyncOpenAI, job: Job, engine: Engine) -> None:
    engine.failing = Response(engine.chunk("aligned", [{"index": 0, "delta": {"content": "good "}}]))
    stream = await openai.chat.completions.create(model=f"job:{job.id}", messages=HELLO, stream=True)
    first = await anext(stream)
    assert first.choices[0].delta.content == "good "
    with pytest.raises(package_errors.APIError, match="broke off"):
        await anext(stream)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"best_of": 3}, "best_of"),
        ({"store": True}, "store"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 1000}, "n"),
        ({"kv_transfer_params": {"remote_host": "x"}}, "kv_transfer_params"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    openai: AsyncOpenAI, job: Job, engine: Engine, wrong: dict[str, Any], field: str
) -> None:
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.chat.completions.create(model=f"job:{job.id}", messages=HELLO, extra_body=wrong)
    assert refused.value.param == field
    assert engine.asked == []


async def test_no_message_makes_an_engine_fetch_anything(openai: AsyncOpenAI, job: Job, engine: Engine) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    for part in (image, {"type": "text", "text": "x", "image_url": "http://127.0.0.1/"}):
        with pytest.raises(package_errors.BadRequestError):
            await openai.chat.completions.create(
                model=f"job:{job.id}",
                messages=[{"role": "user", "content": [part]}],  # type: ignore[list-item,misc]
            )
    assert engine.asked == []


async def test_a_chat_with_a_model_without_a_chat_template_is_refused(
    openai: AsyncOpenAI, job: Job, settings: Settings
) -> None:
    (settings.storage_root / "models" / job.id / "chat_template.jinja").unlink()
    with pytest.raises(package_errors.BadRequestError, match="/v1/completions"):
        await openai.chat.completions.create(model=f"job:{job.id}", messages=HELLO)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_ends_the_generation(
    server: Server, ada: dict[str, str], job: Job, engine: Engine, stream: bool
) -> None:
    engine.endless = True
    async with httpx.AsyncClient(base_url=server.url, headers=ada) as remote:
        body = {"model": f"job:{job.id}", "messages": HELLO, "stream": stream}
        asking = asyncio.create_task(_read(remote, body))
        await until(lambda: engine.busy == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: engine.busy == 0)


async def _read(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_bytes():
            continue
