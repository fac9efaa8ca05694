"""Comparisons against a small OpenAI-style server on a socket: the merging, the errors and the going away are ours to
test; what vLLM really answers is tested end to end."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from api.app import create_app
from api.sse import EventStream
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.jobs.states import DeploymentState, JobState
from service.settings import Settings
from tests.api.conftest import Frame, FrameReader, Server, problem, serve, until
from tests.service.conftest import add_job, deploy, make_model

STREAM = {"Accept": "text/event-stream"}


class Engine:
    """Answers each word of the prompt, marked with the model's name; what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.failing: dict[str, Response] = {}
        self.endless = False
        self.streaming = 0
        self.app = FastAPI()
        self.app.add_api_route("/{job_id}/v1/{path:path}", self.answer, methods=["POST"], response_model=None)

    async def answer(self, request: Request, job_id: str, path: str) -> Response:
        body = await request.json()
        self.asked.append((path, body))
        return self.failing.get(body["model"]) or EventStream(self.chunks(body, chat=path == "chat/completions"))

    async def chunks(self, body: dict[str, Any], chat: bool) -> AsyncGenerator[bytes, None]:
        words = (body["messages"][-1]["content"] if chat else body["prompt"]).split()
        self.streaming += 1
        try:
            for word in words:
                text = f"{body['model']}:{word} "
                yield self.chunk({"delta": {"content": text}} if chat else {"text": text})
            while self.endless:
                await asyncio.sleep(0.01)
                yield self.chunk({"delta": {"content": "on "}})
            yield self.chunk({"delta": {}, "text": "", "finish_reason": "stop"})
            usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()
            yield b"data: [DONE]\n\n"
        finally:
            self.streaming -= 1

    def chunk(self, choice: dict[str, Any]) -> bytes:
        return f"data: {json.dumps({'choices': [{'finish_reason': None} | choice]})}\n\n".encode()


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


async def frames_of(client: httpx.AsyncClient, body: dict[str, Any]) -> list[Frame]:
    async with client.stream("POST", "/v1/comparisons", json=body, headers=STREAM) as response:
        assert response.status_code == 200
        return [frame async for frame in FrameReader(response)]


async def test_both_models_are_asked_the_same_with_one_seed(
    client: httpx.AsyncClient, job: Job, engine: Engine
) -> None:
    frames = await frames_of(client, {"job_id": job.id, "prompt": "good day", "seed": 3, "temperature": 0.5})

    for side in ("base", "aligned"):
        mine = [frame for frame in frames if frame.data.get("side") == side]
        assert [frame.data["text"] for frame in mine[:-1]] == [f"{side}:good ", f"{side}:day "]
        assert mine[-1].event == "done"
        assert mine[-1].data["finish_reason"] == "stop"
        assert mine[-1].data["usage"] == {"prompt_tokens": 7, "completion_tokens": 2}
    assert frames[-1].event == "end"

    (path, one), (_, other) = engine.asked
    assert path == "chat/completions"
    assert {one.pop("model"), other.pop("model")} == {"base", "aligned"}
    assert one == other
    assert (one["seed"], one["temperature"], one["messages"]) == (3, 0.5, [{"role": "user", "content": "good day"}])


async def test_without_a_stream_the_answers_come_whole(client: httpx.AsyncClient, job: Job) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "good day"}]
    answer = await client.post("/v1/comparisons", json={"job_id": job.id, "messages": messages, "seed": 4})
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    assert answer.json() == {
        "base": {"text": "base:good base:day ", "finish_reason": "stop", "usage": usage},
        "aligned": {"text": "aligned:good aligned:day ", "finish_reason": "stop", "usage": usage},
        "seed": 4,
    }


async def test_a_model_without_a_chat_template_goes_on_from_the_prompt(
    client: httpx.AsyncClient, job: Job, engine: Engine, settings: Settings
) -> None:
    (settings.storage_root / "models" / job.id / "chat_template.jinja").unlink()
    await client.post("/v1/comparisons", json={"job_id": job.id, "prompt": "good day"})
    assert [(path, body["prompt"]) for path, body in engine.asked] == [("completions", "good day")] * 2

    messages = [{"role": "user", "content": "good day"}]
    answer = await client.post("/v1/comparisons", json={"job_id": job.id, "messages": messages})
    assert problem(answer, 422, "invalid_request")["field"] == "messages"


async def test_one_side_that_fails_does_not_take_the_other_with_it(
    client: httpx.AsyncClient, job: Job, engine: Engine
) -> None:
    engine.failing["aligned"] = JSONResponse({"error": {"message": "too long", "type": "x", "code": 400}}, 400)
    frames = await frames_of(client, {"job_id": job.id, "prompt": "good day"})

    [error] = [frame for frame in frames if frame.event == "error"]
    assert (error.data["side"], error.data["problem"]["code"]) == ("aligned", "invalid_request")
    assert "too long" in error.data["problem"]["detail"]
    assert [frame.data["side"] for frame in frames if frame.event == "done"] == ["base"]
    problem(await client.post("/v1/comparisons", json={"job_id": job.id, "prompt": "x"}), 422, "invalid_request")


@pytest.mark.parametrize(
    "failing",
    [
        Response("Path '/x' not found.", 404),
        Response("", 500),
        Response("data: {not json\n\n"),
        Response('data: {"error": {"message": "engine dead", "code": 500}}\n\n'),
        Response('data: {"choices": [{"delta": {"content": "half"}}]}\n\n'),
    ],
)
async def test_an_engine_that_does_not_answer_properly_is_unavailable(
    client: httpx.AsyncClient, job: Job, engine: Engine, failing: Response
) -> None:
    engine.failing = {"base": failing, "aligned": failing}
    answer = await client.post("/v1/comparisons", json={"job_id": job.id, "prompt": "x"})
    problem(answer, 503, "serving_unavailable")


async def test_a_serve_that_is_not_there_is_unavailable(
    database: Database, settings: Settings, ada: dict[str, str], job: Job
) -> None:
    app = create_app(settings.model_copy(update={"serve_url": "http://127.0.0.1:9"}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=ada) as client,
    ):
        frames = await frames_of(client, {"job_id": job.id, "prompt": "x"})
    assert [frame.event for frame in frames] == ["error", "error", "end"]


@pytest.mark.parametrize("state", [None, DeploymentState.DEPLOYING, DeploymentState.FAILED, DeploymentState.REMOVING])
async def test_models_that_are_not_ready_are_not_asked(
    client: httpx.AsyncClient, database: Database, job: Job, state: DeploymentState | None
) -> None:
    async with database.transaction() as session:
        [deployment] = await deployments.all_wanted(session)
        deployment.start_s = None  # as if they had never been up
        await session.flush()
        await deployments.set_state(session, deployment, state or DeploymentState.REMOVING)
        if state is None:
            await deployments.removed(session, deployment)
    answer = problem(
        await client.post("/v1/comparisons", json={"job_id": job.id, "prompt": "x"}), 503, "serving_unavailable"
    )
    assert "deploy" in answer["detail"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, ""),
        ({"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, ""),
        ({"prompt": ""}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"prompt": "x", "max_tokens": 5000}, "max_tokens"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "top_p": 1}, "top_p"),
    ],
)
async def test_a_question_that_cannot_be_names_its_field(
    client: httpx.AsyncClient, job: Job, fields: dict[str, Any], field: str
) -> None:
    answer = await client.post("/v1/comparisons", json={"job_id": job.id} | fields)
    assert field in [error["field"] for error in problem(answer, 422, "invalid_request")["errors"]]


async def test_a_reader_that_goes_away_stops_both_engines(
    server: Server, ada: dict[str, str], job: Job, engine: Engine
) -> None:
    engine.endless = True
    async with (
        httpx.AsyncClient(base_url=server.url, headers=ada) as remote,
        remote.stream("POST", "/v1/comparisons", json={"job_id": job.id, "prompt": "x"}, headers=STREAM) as response,
    ):
        sides = set()
        async for frame in FrameReader(response):
            sides.add(frame.data["side"])
            if len(sides) == 2:
                break
    await until(lambda: engine.streaming == 0)
