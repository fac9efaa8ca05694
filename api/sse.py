"""Server-sent events: frames, and streams that follow something until there is nothing more to come."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.problems import error_response
from api.stream_keys import StreamKeys
from service.errors import InvalidRequest, TooManyStreams
from service.keys.service import Caller
from service.settings import Settings
from service.telemetry.metrics import OPEN_STREAMS

KEEP_ALIVE_S = 15.0
MAX_NUMBER = 2**31 - 1

DOCUMENTED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@dataclass(frozen=True)
class News:
    """What has come since the last time. `more`: ask again at once. `ended`: nothing can come any more."""

    frames: list[bytes] = field(default_factory=list)
    more: bool = False
    ended: bool = False


class Source(Protocol):
    """What a stream follows."""

    async def news(self) -> News: ...

    async def wait(self, timeout_s: float) -> None:
        """Until there may be news since `news` was last asked, or for `timeout_s` seconds; within about a second when
        the process is told to end."""


def frame(event: str, data: str = "{}", number: int | None = None) -> bytes:
    """data: JSON on one line. number: what `Last-Event-ID` says to go on after this frame."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {event}\ndata: {data}\n\n".encode()


def wanted(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def resume_after(request: Request, after: int) -> int:
    """The number to go on from: of the Last-Event-ID header if there is one, else `after`."""
    last = request.headers.get("last-event-id")
    if last is None:
        return after
    if not (last.isascii() and last.isdecimal() and len(last) <= 10 and int(last) <= MAX_NUMBER):
        raise InvalidRequest(
            "Last-Event-ID must be the `id` of the last frame received, a whole number.", field="Last-Event-ID"
        )
    return int(last)


class EventStream(StreamingResponse):
    """Closes its frames as soon as the client has gone, wherever they had got to; Starlette leaves that to the
    garbage collector. One stream too many for its project becomes the answer 429 instead."""

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        super().__init__(frames, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller | None = scope.get("state", {}).get("caller")
        if caller is None:  # of an application without projects
            await super().__call__(scope, receive, send)
            return
        project_id = caller.project_id
        settings: Settings = scope["app"].state.settings
        open_streams: Counter[str] = scope["app"].state.open_streams
        if open_streams[project_id] >= settings.max_streams:
            await self._frames.aclose()
            refused = TooManyStreams(
                f"{settings.max_streams} event streams of your project are open: close some, or ask again later."
            )
            await error_response(Request(scope), refused)(scope, receive, send)
            return
        open_streams[project_id] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            open_streams[project_id] -= 1
            if not open_streams[project_id]:
                del open_streams[project_id]

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._frames):
            with OPEN_STREAMS.track_inprogress():
                await super().stream_response(send)


class FollowingStream(EventStream):
    """Of what `follow` gives. It ends with `reconnect` soon after the caller's key is revoked, has expired or lost its
    user: whoever connects again is refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._keys: StreamKeys = scope["app"].state.stream_keys
        self._key_id: str = scope["state"]["caller"].key_id
        await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        async with self._keys.while_good(self._key_id) as until_refused:
            await super().stream_response(send)
        if until_refused.expired():
            await send({"type": "http.response.body", "body": frame("reconnect"), "more_body": False})


async def follow(
    opened: AbstractContextManager[Source], *, lifetime_s: float, leaving: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """The source's frames; then `end`, or `reconnect` after `lifetime_s` seconds or when `leaving` is set: this process
    is about to end, and another one goes on."""
    with opened as source:
        started = last_sent = time.monotonic()
        while True:
            news = await source.news()
            if news.frames:
                yield b"".join(news.frames)
                last_sent = time.monotonic()
            if news.ended:
                yield frame("end")
                return
            now = time.monotonic()
            if leaving.is_set() or now - started >= lifetime_s:
                yield frame("reconnect")
                return
            if now - last_sent >= KEEP_ALIVE_S:
                yield b": keep-alive\n\n"
                last_sent = now
            if not news.more:
                await source.wait(min(started + lifetime_s, last_sent + KEEP_ALIVE_S) - now)
