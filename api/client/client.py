"""The two clients: one that blocks and one to await, with the same resources."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from api.client.call import AsyncSender, Call, Sender, StreamCall
from api.client.errors import PlumblineError
from api.client.exchange import STREAM_TIMEOUT, Connection, Following, Tries, check, opened_files, read
from api.client.resources import Resources
from api.client.sse import FrameParser

T = TypeVar("T")
_STREAM = {"Accept": "text/event-stream"}


class Client(Resources[Sender]):
    """Blocks until each answer is there. Raises PlumblineError: Unreachable when nothing answers, ApiError for the
    API's problems.

        with plumbline.Client("https://plumbline.example.org", key) as client:
            job = client.jobs.create({"model": "hf:team/base", "data": {"train": file.id}})

    url, key: by default PLUMBLINE_URL and PLUMBLINE_API_KEY.
    max_retries: how often a request is sent again that was not answered, where a second time changes nothing.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, max_retries: int = 2) -> None:
        self._connection = Connection.of(url, key)
        self._max_retries = max_retries
        self._http = httpx.Client(**self._connection.options)
        super().__init__(self)

    @property
    def url(self) -> str:
        return self._connection.url

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, call: Call[T]) -> T:
        tries = Tries(call, self._max_retries)
        while True:
            outcome = self._sent(call)
            wait_s = tries.wait_s(outcome) if isinstance(outcome, httpx.TransportError) or outcome.is_error else None
            if wait_s is None:
                if isinstance(outcome, httpx.TransportError):
                    raise self._connection.unreachable(outcome) from outcome
                return read(call, outcome)
            time.sleep(wait_s)

    @contextmanager
    def opened(self, call: Call[Any]) -> Iterator[httpx.Response]:
        """The answer to one request, to be read piece by piece however long it is. Raises as `send` does, also in the
        midst of it."""
        with ExitStack() as stack:
            try:
                request = self._http.stream(
                    call.method,
                    call.path,
                    params=call.params,
                    json=call.json,
                    headers=call.headers,
                    files=opened_files(call, stack),
                )
                response = stack.enter_context(request)
                if response.is_error:
                    response.read()
                check(response)
                yield response
            except httpx.TransportError as error:
                raise self._connection.unreachable(error) from error

    def stream(self, call: StreamCall[T]) -> Iterator[T]:
        following = Following(call)
        while True:
            broken: PlumblineError | None = None
            try:
                yield from self._connected(following)
            except httpx.TransportError as error:
                broken = self._connection.unreachable(error)
            except PlumblineError as error:
                broken = error
            if following.ended:
                return
            time.sleep(following.after_break(broken))

    def _sent(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        with ExitStack() as stack:
            files = opened_files(call, stack)
            try:
                return self._http.request(
                    call.method, call.path, params=call.params, json=call.json, headers=call.headers, files=files
                )
            except httpx.TransportError as error:
                return error

    def _connected(self, following: Following[T]) -> Iterator[T]:
        call = following.call
        request = self._http.stream(
            call.method, call.path, params=following.params, json=call.json, headers=_STREAM, timeout=STREAM_TIMEOUT
        )
        with request as response:
            if response.is_error:
                response.read()
            check(response)
            parser = FrameParser()
            for line in response.iter_lines():
                if frame := parser.feed(line):
                    yield from following.take(frame)
                    if following.ended:
                        return


class AsyncClient(Resources[AsyncSender]):
    """`Client` to be awaited: `await client.jobs.create(...)`, `async for event in client.jobs.events(job_id)`."""

    def __init__(self, url: str | None = None, key: str | None = None, *, max_retries: int = 2) -> None:
        self._connection = Connection.of(url, key)
        self._max_retries = max_retries
        self._http = httpx.AsyncClient(**self._connection.options)
        super().__init__(self)

    @property
    def url(self) -> str:
        return self._connection.url

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, call: Call[T]) -> T:
        tries = Tries(call, self._max_retries)
        while True:
            outcome = await self._sent(call)
            wait_s = tries.wait_s(outcome) if isinstance(outcome, httpx.TransportError) or outcome.is_error else None
            if wait_s is None:
                if isinstance(outcome, httpx.TransportError):
                    raise self._connection.unreachable(outcome) from outcome
                return read(call, outcome)
            await asyncio.sleep(wait_s)

    async def stream(self, call: StreamCall[T]) -> AsyncIterator[T]:
        following = Following(call)
        while True:
            broken: PlumblineError | None = None
            try:
                async for one in self._connected(following):
                    yield one
            except httpx.TransportError as error:
                broken = self._connection.unreachable(error)
            except PlumblineError as error:
                broken = error
            if following.ended:
                return
            await asyncio.sleep(following.after_break(broken))

    async def _sent(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        with ExitStack() as stack:
            files = opened_files(call, stack)
            try:
                return await self._http.request(
                    call.method, call.path, params=call.params, json=call.json, headers=call.headers, files=files
                )
            except httpx.TransportError as error:
                return error

    async def _connected(self, following: Following[T]) -> AsyncIterator[T]:
        call = following.call
        request = self._http.stream(
            call.method, call.path, params=following.params, json=call.json, headers=_STREAM, timeout=STREAM_TIMEOUT
        )
        async with request as response:
            if response.is_error:
                await response.aread()
            check(response)
            parser = FrameParser()
            async for line in response.aiter_lines():
                if frame := parser.feed(line):
                    for one in following.take(frame):
                        yield one
                    if following.ended:
                        return
