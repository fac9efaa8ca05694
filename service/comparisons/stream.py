"""Asking both models at once and merging their answers as the tokens come."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from aiohttp import ClientSession

from service.comparisons.service import Question
from service.errors import ServiceError
from service.serving import engine
from service.serving.models import Side


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


async def ask_both(client: ClientSession, question: Question) -> AsyncGenerator[Part, None]:
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


async def _ask(client: ClientSession, question: Question, side: Side) -> AsyncIterator[Part]:
    finish_reason: str | None = None
    usage: dict[str, int] = {}
    body = question.body | {"model": question.models[side]}
    async with aclosing(engine.stream(client, question.urls[side], body, side)) as chunks:
        async for chunk in chunks:
            for choice in chunk.get("choices") or ():
                text = choice.get("text") or (choice.get("delta") or {}).get("content")
                if text:
                    yield Delta(side, text)
                finish_reason = choice.get("finish_reason") or finish_reason
            if counted := chunk.get("usage"):
                usage = {name: int(counted.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
    yield Done(side, finish_reason, usage)
