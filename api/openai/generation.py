"""`/v1/chat/completions` and `/v1/completions`, as OpenAI's package calls them: passed to the job's engines."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from api import sse
from api.deps import DatabaseDep, ProjectDep, ServeClientDep, SettingsDep
from api.hangup import unless_gone
from api.openai.errors import error_object, errors
from api.openai.generation_request import ChatRequest, CompletionRequest, Generation
from api.problems import problem
from service.errors import InvalidRequest, ModelNotDeployed, NotFound, ServiceError, ServingUnavailable, TooLarge
from service.serving import engine
from service.serving.models import engine_url, has_chat_template, require_served
from service.spec import Storage

router = APIRouter(tags=["OpenAI"])

_ANSWERS = sse.DOCUMENTED | errors(NotFound, ModelNotDeployed, ServingUnavailable, InvalidRequest, TooLarge)


@router.post("/chat/completions", response_model=dict[str, Any], responses=_ANSWERS)
async def chat(
    http: Request,
    request: ChatRequest,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    client: ServeClientDep,
) -> Response:
    """The model's answer to a conversation; with `stream: true` in chunks, as server-sent events."""
    job, side = await require_served(database, project_id, request.model)
    if not await asyncio.to_thread(has_chat_template, Storage(settings.storage_root).model(job.id)):
        raise InvalidRequest("The model has no chat template: use /v1/completions.", field="messages")
    url = engine_url(settings, job.id, "chat/completions")
    return await _answer(http, request, client, url, request.body(side))


@router.post("/completions", response_model=dict[str, Any], responses=_ANSWERS)
async def complete(
    http: Request,
    request: CompletionRequest,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    client: ServeClientDep,
) -> Response:
    """How the model goes on from a text; with `stream: true` in chunks, as server-sent events."""
    job, side = await require_served(database, project_id, request.model)
    return await _answer(http, request, client, engine_url(settings, job.id, "completions"), request.body(side))


async def _answer(
    http: Request, request: Generation, client: httpx.AsyncClient, url: str, body: dict[str, Any]
) -> Response:
    """A client that hangs up, before or while the answer comes, ends the generation."""
    if not request.stream:
        whole = await unless_gone(http, engine.ask(client, url, body, request.model))
        return JSONResponse(whole | {"model": request.model}) if whole else Response()
    chunks = engine.stream(client, url, body, request.model)
    first = await unless_gone(http, _next(chunks))  # what is refused is an error, and no stream that begins with one
    return sse.EventStream(_frames(first, chunks, request.model)) if first else Response()


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
