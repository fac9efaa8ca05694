"""Asking both models at once and merging their answers as the tokens come."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

from service.comparisons.service import Question
from service.errors import InvalidRequest, ServiceError, ServingUnavailable

# The first token waits for whatever else the engine is generating; connecting should not.
TIMEOUT = httpx.Timeout(120, connect=5)


class Side(StrEnum):
    BASE = "base"
    ALIGNED = "aligned"


@dataclass(frozen=True)
class Delta:
    side: Side
    text: str


@dataclass(frozen=True)
class Done:
    side: Side
    finish_reason: str | None
    usage: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Broken:
    side: Side
    error: ServiceError


Part = Delta | Done | Broken


async def ask_both(client: httpx.AsyncClient, question: Question) -> AsyncGenerator[Part, None]:
    """Deltas of both sides as they come; each side ends with `Done` or `Broken`, and the other goes on regardless.

    Closing the iterator early closes both connections, which stops the generation.
    """
    parts: asyncio.Queue[Part | None] = asyncio.Queue()

    async def ask(side: Side) -> None:
        try:
            async for part in _ask(client, question, side):
                await parts.put(part)
        except ServiceError as error:
            await parts.put(Broken(side, error))
        finally:
            await parts.put(None)

    tasks = [asyncio.create_task(ask(side)) for side in Side]
    try:
        running = len(tasks)
        while running:
            part = await parts.get()
            if part is None:
                running -= 1
            else:
                yield part
        await asyncio.gather(*tasks)  # a bug of ours in either task is raised here
    finally:
        for task in tasks:
            task.cancel()
        # Shielded: whoever cancels us may do so again and again, and each time would cut the closing of a connection.
        await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))


async def _ask(client: httpx.AsyncClient, question: Question, side: Side) -> AsyncIterator[Part]:
    finish_reason: str | None = None
    usage: dict[str, int] = {}
    try:
        body = question.body | {"model": side}
        async with client.stream("POST", question.url, json=body, timeout=TIMEOUT) as response:
            if response.status_code != httpx.codes.OK:
                raise _refusal(side, response.status_code, await response.aread())
            async for chunk in _chunks(side, response):
                for choice in chunk.get("choices") or ():
                    text = choice.get("text") or (choice.get("delta") or {}).get("content")
                    if text:
                        yield Delta(side, text)
                    finish_reason = choice.get("finish_reason") or finish_reason
                if counted := chunk.get("usage"):
                    usage = {name: int(counted.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
    except httpx.HTTPError as error:
        raise ServingUnavailable(f"The {side} model broke off ({type(error).__name__}): try again.") from error
    if finish_reason is None:
        raise ServingUnavailable(f"The {side} model's answer broke off before its end: try again.")
    yield Done(side, finish_reason, usage)


async def _chunks(side: Side, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            chunk = json.loads(data)
        except ValueError as error:
            raise ServingUnavailable(f"The {side} model's answer cannot be read: try again.") from error
        if "error" in chunk:  # the engine failed after the stream had begun
            raise _refusal(side, int(chunk["error"].get("code") or 500), data.encode())
        yield chunk


def _refusal(side: Side, status: int, body: bytes) -> ServiceError:
    if status in (400, 422):
        return InvalidRequest(f"The {side} model refused the request: {_reason(body)}")
    return ServingUnavailable(f"The {side} model does not answer (status {status}): try again, or deploy it again.")


def _reason(body: bytes) -> str:
    """The engine's own words, as vLLM and Ray Serve spell them."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body[:500].decode(errors="replace")
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]
