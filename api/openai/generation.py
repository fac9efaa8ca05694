"""`/v1/chat/completions` and `/v1/completions`, as OpenAI's package calls them: passed to the job's engines."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import ClientSession
from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from api import sse
from api.deps import DatabaseDep, DeploymentUsesDep, ReadProjectDep, ServeClientDep, SettingsDep
from api.hangup import unless_gone
from api.openai.errors import error_object, errors
from api.openai.generation_request import ChatRequest, CompletionRequest, Generation
from api.problems import problem
from service.archive.local import local_model
from service.deployments.uses import DeploymentUses
from service.errors import (
    InvalidRequest,
    ModelNotDeployed,
    ModelWaking,
    NotFound,
    ServiceError,
    ServingUnavailable,
    TooLarge,
)
from service.serving import engine
from service.serving.models import Served, has_chat_template, require_served

router = APIRouter(tags=["OpenAI"])

_ANSWERS = sse.DOCUMENTED | errors(
    NotFound, ModelNotDeployed, ServingUnavailable, ModelWaking, InvalidRequest, TooLarge
)


@router.post("/chat/completions", response_model=dict[str, Any], responses=_ANSWERS)
async def chat(
    http: Request,
    request: ChatRequest,
    project_id: ReadProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    uses: DeploymentUsesDep,
    client: ServeClientDep,
) -> Response:
    """The model's answer to a conversation; with `stream: true` in chunks, as server-sent events."""

    async def answer() -> Response:
        served = await require_served(database, settings, uses, project_id, request.model)
        directory = await local_model(database, settings, served.job_id, served.step)
        if not await asyncio.to_thread(has_chat_template, directory):
            raise InvalidRequest("The model has no chat template: use /v1/completions.", field="messages")
        return await _answer(request, client, uses, served, "chat/completions")

    return await unless_gone(http, answer()) or Response()


@router.post("/completions", response_model=dict[str, Any], responses=_ANSWERS)
async def complete(
    http: Request,
    request: CompletionRequest,
    project_id: ReadProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    uses: DeploymentUsesDep,
    client: ServeClientDep,
) -> Response:
    """How the model goes on from a text; with `stream: true` in chunks, as server-sent events."""

    async def answer() -> Response:
        served = await require_served(database, settings, uses, project_id, request.model)
        return await _answer(request, client, uses, served, "completions")

    return await unless_gone(http, answer()) or Response()


async def _answer(
    request: Generation, client: ClientSession, uses: DeploymentUses, served: Served, path: str
) -> Response:
    """The whole answer, or a stream whose first chunk has come: what is refused is an error, and no stream that begins
    with one. Cancelled, it ends the generation, and so does a client that leaves the stream."""
    url, body = served.url(path), request.body(served.model)
    if not request.stream:
        with uses.during(served.deployment_id):
            whole = await engine.ask(client, url, body, request.model)
        return JSONResponse(whole | {"model": request.model})
    chunks = engine.stream(client, url, body, request.model)
    first = await _next(chunks)
    return sse.EventStream(_during(uses, served, _frames(first, chunks, request.model)))


async def _during(
    uses: DeploymentUses, served: Served, frames: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    with uses.during(served.deployment_id):
        async with aclosing(frames):
            async for frame in frames:
                yield frame


async def _next(chunks: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    async for chunk in chunks:
        return chunk
    raise ServingUnavailable("The model's answer is empty: try again.")


async def _frames(
    first: dict[str, Any], rest: AsyncGenerator[dict[str, Any], None], model: str
) -> AsyncGenerator[bytes, None]:
    """OpenAI's frames: `data` alone, `[DONE]` at the end, and an object `error` where it broke off."""
    async with aclosing(rest):
        yield _frame(first | {"model": model})
        try:
            async for chunk in rest:
                yield _frame(chunk | {"model": model})
        except ServiceError as error:
            yield _frame({"error": error_object(problem(error))})
            return
    yield b"data: [DONE]\n\n"


def _frame(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()
