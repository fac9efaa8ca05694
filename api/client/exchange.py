"""What both clients do around a request, without any input or output: its parts, its answer, when to try again."""

import os
import random
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Generic, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from api.client.call import Call, StreamCall
from api.client.errors import ApiError, NotPlumbline, PlumblineError, Unreachable
from api.client.sse import Frame

T = TypeVar("T")

# An upload is checked and a comparison generated before the answer: minutes.
TIMEOUT = httpx.Timeout(600, connect=10)
STREAM_TIMEOUT = httpx.Timeout(45, connect=10)  # three keep-alive comments of a stream
_BUSY = {429, 502, 503, 504}
_LONGEST_WAIT_S = 60.0
_RECONNECT_S = 1.0


@dataclass(frozen=True)
class Connection:
    """Where the API is, and the key. Defaults: PLUMBLINE_URL and PLUMBLINE_API_KEY."""

    url: str
    key: str

    @classmethod
    def of(cls, url: str | None, key: str | None) -> "Connection":
        url, key = url or os.environ.get("PLUMBLINE_URL"), key or os.environ.get("PLUMBLINE_API_KEY")
        if not url or not key:
            missing = "url (or PLUMBLINE_URL)" if not url else "key (or PLUMBLINE_API_KEY)"
            raise PlumblineError(f"The client needs {missing}.")
        return cls(url.rstrip("/"), key)

    @property
    def options(self) -> dict[str, Any]:
        """Of the HTTP client."""
        return {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {self.key}"},
            "timeout": TIMEOUT,
            "trust_env": httpx.URL(self.url).host not in {"127.0.0.1", "localhost", "::1"},  # proxies are for elsewhere
        }

    def unreachable(self, error: httpx.TransportError) -> Unreachable:
        reason = str(error) or type(error).__name__
        return Unreachable(
            f"No answer from Plumbline at {self.url} ({reason}). Start it with `plumbline up`, or name another "
            "address with --url or PLUMBLINE_URL."
        )


def opened_files(call: Call[Any], until: ExitStack) -> dict[str, tuple[str, BinaryIO]] | None:
    """The form's files by field, open until then."""
    return {name: (path.name, until.enter_context(path.open("rb"))) for name, path in call.files.items()} or None


def read(call: Call[T], response: httpx.Response) -> T:
    """The answer. Raises ApiError for the API's problems, NotPlumbline for anything that it would not say."""
    check(response)
    if call.answer is bytes:
        return response.content  # type: ignore[return-value]  # T is bytes
    if call.answer is type(None):
        return None
    try:
        return TypeAdapter(call.answer).validate_json(response.content)
    except ValidationError as error:
        raise NotPlumbline(
            f"{response.request.url} answered what this client cannot read; is it an older or newer Plumbline? {error}"
        ) from error


def check(response: httpx.Response) -> None:
    """Raises ApiError or NotPlumbline unless all went well. The body must have been read."""
    if response.is_success:
        return
    kind = response.headers.get("content-type", "")
    if kind.startswith("application/problem+json"):
        raise ApiError(response.status_code, response.json())
    if kind.startswith("application/json") and (problem := _of_openai(response.json())) is not None:
        raise ApiError(response.status_code, problem)
    raise NotPlumbline(f"{response.request.url} answered {response.status_code} without saying why: is it Plumbline?")


def _of_openai(body: Any) -> dict[str, Any] | None:
    """The problem in an error of the routes that OpenAI's package calls; None if it is none."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not {"message", "code"} <= error.keys():
        return None
    return error | {"detail": error["message"], "field": error.get("param")}


@dataclass
class Tries:
    """When a call is sent again: if it is repeatable or was not taken, after a wait that doubles."""

    call: Call[Any]
    left: int
    _next_s: float = 0.5

    def wait_s(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds to wait before the next try; None: this was the last."""
        if self.left == 0 or not self._worthwhile(outcome):
            return None
        self.left -= 1
        wait_s, self._next_s = self._next_s * random.uniform(0.75, 1.25), self._next_s * 2  # noqa: S311 - no secret
        if isinstance(outcome, httpx.Response) and outcome.headers.get("retry-after", "").isdecimal():
            return min(float(outcome.headers["retry-after"]), _LONGEST_WAIT_S)
        return wait_s

    def _worthwhile(self, outcome: httpx.Response | httpx.TransportError) -> bool:
        if isinstance(outcome, httpx.Response):
            return outcome.status_code == 429 or (outcome.status_code in _BUSY and self.call.repeatable)
        return self.call.repeatable or isinstance(outcome, httpx.ConnectError)


@dataclass
class Following(Generic[T]):
    """How far a stream has been read, over all its connections."""

    call: StreamCall[T]
    ended: bool = False
    _last: int | None = None
    _heard_at: float = field(default_factory=time.monotonic)

    @property
    def params(self) -> Mapping[str, Any]:
        return self.call.params if self._last is None else {**self.call.params, "after": self._last}

    def take(self, frame: Frame) -> list[T]:
        """What the frame brings: one thing or nothing."""
        self._heard_at = time.monotonic()
        self._last = frame.id if frame.id is not None else self._last
        self.ended = frame.event == "end"
        if frame.event not in self.call.kinds:
            return []
        try:
            found: T = TypeAdapter(self.call.kinds[frame.event]).validate_python(frame.data)
        except ValidationError as error:
            raise NotPlumbline(
                f"A `{frame.event}` frame cannot be read; is it an older or newer Plumbline? {error}"
            ) from error
        return [found]

    def after_break(self, error: PlumblineError | None) -> float:
        """Seconds until the next connection. Raises `error` if there shall be none.

        error: why the last one broke; None if it was closed in order.
        """
        if not self.call.follows:
            raise error or Unreachable("The stream ended before it was complete.")
        lasting = isinstance(error, ApiError) and error.status < 500 and error.status != 429
        lasting = lasting or isinstance(error, NotPlumbline)
        if error and (lasting or time.monotonic() - self._heard_at > self.call.patience_s):
            raise error
        return _RECONNECT_S
