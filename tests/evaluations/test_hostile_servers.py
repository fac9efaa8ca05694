"""Servers that hang, lie or send what is no answer: each costs its own questions and nothing else."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from service.controller import evaluate as evaluate_module
from service.controller.context import Controller
from service.controller.evaluate import Evaluate
from service.db.session import Database
from service.evaluations import ask as ask_module
from service.evaluations import run as run_module
from service.evaluations.ask import Pace, Reply
from service.evaluations.repository import EvaluationRepository
from service.evaluations.states import EvaluationState
from service.evaluations.targets import Target
from service.settings import Settings
from tests.evaluations.conftest import body, look, make, work
from tests.evaluations.openai_server import OpenAIServer

Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(speak: Speak) -> AsyncIterator[str]:
    """The URL of a server that reads a request's headers and then does what it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await speak(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the one who asked has left
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def sends(content: bytes, *headers: str, length: int | None = None) -> Speak:
    async def speak(writer: asyncio.StreamWriter) -> None:
        size = len(content) if length is None else length
        head = "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {size}", "Connection: close", *headers, "", ""])
        writer.write(head.encode() + content)
        await writer.drain()

    return speak


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drip(writer: asyncio.StreamWriter) -> None:
    """A byte at a time, so that no single wait is long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


async def babble(writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 4)
    await writer.drain()


def completion(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.mark.parametrize(
    ("speak", "told"),
    [
        pytest.param(hang, "did not answer within 0.5 s", id="hangs"),
        pytest.param(drip, "did not answer within 0.5 s", id="drips"),
        pytest.param(flood, "answered more than 8388608 bytes", id="floods"),
        pytest.param(babble, "cannot be reached or understood", id="babbles"),
        pytest.param(sends(b"{}", length=100), "cannot be reached or understood", id="breaks off"),
        pytest.param(sends(b"no gzip at all", "Content-Encoding: gzip"), "understood", id="is not gzip"),
        pytest.param(
            sends(gzip.compress(b" " * 2**24), "Content-Encoding: gzip"), "more than 8388608 bytes", id="bomb"
        ),
        pytest.param(sends(b"<html>"), "what is no completion", id="no JSON"),
        pytest.param(sends(b"[" * 100_000), "what is no completion", id="deep"),
        pytest.param(sends(b"[" + b"9" * 10_000 + b"]"), "what is no completion", id="a long number"),
        pytest.param(sends(b'{"choices": {"0": 1}}'), "what is no completion", id="an object for a list"),
        pytest.param(sends(completion(["parts"])), "what is no completion", id="a list for a text"),
        pytest.param(sends(b"data: {}\n\n", "Content-Type: text/event-stream"), "no completion", id="a stream"),
    ],
)
async def test_what_is_no_answer_is_counted_as_failed_and_says_what_it_was(
    database: Database,
    settings: Settings,
    controller: Controller,
    server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    speak: Speak,
    told: str,
) -> None:
    async def ask(client: httpx.AsyncClient, settings: Settings, target: Target, body: Any, pace: Pace) -> Reply:
        # who never answers has little time; the other server may take its own on a busy machine
        short = {"evaluation_timeout_s": 0.5} if target.model == "hostile" and "0.5 s" in told else {}
        return await ask_module.ask(client, settings.model_copy(update=short), target, body, pace)

    monkeypatch.setattr(run_module, "ask", ask)
    async with speaking(speak) as url:
        change = {"evaluation_origins": [url.removesuffix("/v1"), server.origin], "evaluation_max_tries": 1}
        settings = settings.model_copy(update=change | {"evaluation_timeout_s": 60})
        asked = body(server, prompts={"type": "inline", "items": [{"prompt": "one"}, {"prompt": "two"}]})
        asked["models"][0]["endpoint"] = {"url": url, "model": "hostile"}
        done = await work(replace(controller, settings=settings), await make(database, settings, asked))
    assert done.state is EvaluationState.COMPLETED
    async with database.reading() as session:
        answers = await EvaluationRepository(session).answers(done.id)
    assert [one.text is None for one in answers] == [True, False] * 2  # the other model's are there
    assert all(told in (one.error or "") for one in answers if one.text is None)


@pytest.mark.parametrize("text", ["\0 \ud800", "Verdict: \u202eA", "x" * 1_000_000], ids=["no text", "bidi", "long"])
async def test_any_text_is_stored_and_shown_to_the_judge(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, text: str
) -> None:
    async with speaking(sends(completion(text))) as url:
        settings = settings.model_copy(update={"evaluation_origins": [url.removesuffix("/v1"), server.origin]})
        asked = body(server, prompts={"type": "inline", "items": [{"prompt": "one"}]})
        asked["models"][0]["endpoint"] = {"url": url, "model": "hostile"}
        done = await work(replace(controller, settings=settings), await make(database, settings, asked))
    async with database.reading() as session:
        verdicts = await EvaluationRepository(session).verdicts(done.id)
    assert [one.outcome for one in verdicts] == [1.0, 1.0]


@pytest.mark.parametrize("header", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "-1", "9" * 500, "soon"])
async def test_a_retry_after_that_means_nothing_harms_nobody(
    database: Database,
    settings: Settings,
    controller: Controller,
    server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    header: str,
) -> None:
    monkeypatch.setattr(ask_module, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(ask_module, "_LONGEST_RETRY_AFTER_S", 0.01)
    monkeypatch.setattr(evaluate_module, "_AWAY_WAIT_S", 0.01)

    async def busy(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 503 Busy\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    async with speaking(busy) as url:
        settings = settings.model_copy(update={"evaluation_origins": [url.removesuffix("/v1"), server.origin]})
        asked = body(server)
        asked["models"][0]["endpoint"] = {"url": url, "model": "hostile"}
        evaluation = await make(database, settings, asked)
        async with Evaluate() as evaluate, asyncio.timeout(120):
            while (waiting := await look(database, evaluation)).error is None:
                await evaluate.reconcile(replace(controller, settings=settings))
                await asyncio.sleep(0.01)
    assert waiting.error["code"] == "waiting"


async def test_servers_that_hang_keep_no_other_project_waiting(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    async with speaking(hang) as url:
        settings = settings.model_copy(update={"evaluation_origins": [url.removesuffix("/v1"), server.origin]})
        controller = replace(controller, settings=settings)
        slow = body(server)
        slow["models"][0]["endpoint"] = {"url": url, "model": "hostile"}
        stuck = [await make(database, settings, slow) for _ in range(6)]
        done = await work(controller, await make(database, settings, body(server), project_id="bob"))
    assert done.state is EvaluationState.COMPLETED
    states = [(await look(database, one)).state for one in stuck]
    assert sorted(states) == [EvaluationState.QUEUED] * 2 + [EvaluationState.RUNNING] * 4
