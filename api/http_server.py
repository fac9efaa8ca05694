"""uvicorn, with limits on what a client may do before and after the application sees it.

uvicorn itself waits for ever for a request's headers, takes them at any length, and waits for ever for a client that
does not read its answer. How slowly a body may come is for `api.slow_bodies`, which can say so in an answer.
"""

import asyncio
import socket
from typing import Any, ClassVar, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# For requests that are being answered when the process is told to end; event streams end at once. What takes longer, a
# long generation or a large upload, is cut off.
GRACEFUL_SHUTDOWN_S = 20
# An idle connection is for the client to close, or for a proxy, most of which do so within a minute: where both wait as
# long, a request is sent while the connection is being closed, and whoever sent it sees it broken.
KEEP_ALIVE_S = 75


class BoundedProtocol(HttpToolsProtocol):
    """Cuts a connection whose first request's headers, or another's that has begun, are not whole in `headers_s` or
    `max_headers` bytes, and one whose client takes nothing of an answer for `unread_s`. Between requests it may be idle
    for uvicorn's `timeout_keep_alive`."""

    headers_s: ClassVar[float] = 20
    max_headers: ClassVar[int] = 64 * 2**10
    unread_s: ClassVar[float] = 60

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_due: asyncio.TimerHandle | None = None
        self._reading_due: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel_timers()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._header_bytes += len(data)
        super().data_received(data)
        if not self._in_body and self._header_bytes > self.max_headers:
            self.transport.abort()
        else:
            self._watch_headers()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_body = True

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body, self._header_bytes = False, 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None

    def _watch_headers(self) -> None:
        """The time runs while nothing is being answered, from a request's first byte on. What still comes of a body
        that was refused counts in it."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        is_idle = self.cycle is not None and not self._in_body and not self._header_bytes
        if is_answering or is_idle:
            if self._headers_due is not None:
                self._headers_due.cancel()
                self._headers_due = None
        elif self._headers_due is None:
            self._headers_due = self.loop.call_later(self.headers_s, self._stop_waiting_for_headers)

    def _stop_waiting_for_headers(self) -> None:
        if self.transport.get_write_buffer_size():
            self._watch_reading()  # of the answer before: it ends the connection, which is not to be used again
            self.transport.close()
        else:
            self.transport.abort()

    def _watch_reading(self, unread_before: int | None = None) -> None:
        """Look again and again whether the client has taken something of what waits for it."""
        unread = self.transport.get_write_buffer_size()
        if unread_before is not None and unread >= unread_before:
            self.transport.abort()
        else:
            self._reading_due = self.loop.call_later(self.unread_s, self._watch_reading, unread)

    def _cancel_timers(self) -> None:
        for timer in (self._headers_due, self._reading_due):
            if timer is not None:
                timer.cancel()


class Server(uvicorn.Server):
    """Told to end, it takes no more connections, has event streams end with `reconnect`, and waits for answers that are
    under way."""

    def __init__(self, config: uvicorn.Config, leaving: asyncio.Event | None) -> None:
        super().__init__(config)
        self._leaving = leaving

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._leaving is not None:
            self._leaving.set()
        await super().shutdown(sockets)


def http_server(
    app: FastAPI,
    *,
    host: str,
    port: int,
    protocol: type[BoundedProtocol] = BoundedProtocol,
    leaving: asyncio.Event | None = None,
    graceful_shutdown_s: int = GRACEFUL_SHUTDOWN_S,
) -> Server:
    """leaving: set when the server is told to end. graceful_shutdown_s: for how long it then waits for answers."""
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=protocol,
            ws="none",  # there are none
            log_config=None,  # what the process has set up
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=graceful_shutdown_s,
        ),
        leaving,
    )
