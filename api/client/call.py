"""A request to the API as a value, and methods made of such values for both clients at once.

Each operation is defined once, as a function that builds its `Call`. `Operation` and `Streaming` turn it into a method
that answers at once on `Client`'s resources and is awaited on `AsyncClient`'s; type checkers see which.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

T = TypeVar("T")
P = ParamSpec("P")
SenderT = TypeVar("SenderT")


@dataclass(frozen=True)
class Call(Generic[T]):
    """path: with its IDs filled in. answer: what the JSON is read as, or `bytes`. files: sent as a form, by its fields.

    repeatable: may be sent again when no answer came, since a second time changes nothing.
    """

    method: str
    path: str
    answer: type[T]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    repeatable: bool = False


@dataclass(frozen=True)
class StreamCall(Generic[T]):
    """A request for server-sent events. kinds: what the data of each kind of frame is read as; others are left out.

    follows: it goes on after a break or a `reconnect` frame, from the last frame that had an ID.
    patience_s: for how long the API may then be away at a stretch.
    """

    method: str
    path: str
    kinds: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    follows: bool = False
    patience_s: float = 60


class Sender(Protocol):
    def send(self, call: Call[T]) -> T: ...
    def stream(self, call: StreamCall[T]) -> Iterator[T]: ...


class AsyncSender(Protocol):
    def send(self, call: Call[T]) -> Awaitable[T]: ...
    def stream(self, call: StreamCall[T]) -> AsyncIterator[T]: ...


class Resource(Generic[SenderT]):
    """A family of operations of one client."""

    def __init__(self, sender: SenderT) -> None:
        self._sender = sender


class Operation(Generic[P, T]):
    """A method that sends what `build` makes of its arguments."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self.build = build

    @overload
    def __get__(self, resource: Resource[Sender], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: Resource[AsyncSender], owner: type) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, resource: None, owner: type) -> "Operation[P, T]": ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        if resource is None:
            return self

        @wraps(self.build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource._sender.send(self.build(*args, **kwargs))

        return method


class Streaming(Generic[P, T]):
    """A method that gives, one by one, what comes of the stream that `build` asks for."""

    def __init__(self, build: Callable[P, StreamCall[T]]) -> None:
        self.build = build

    @overload
    def __get__(self, resource: Resource[Sender], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, resource: Resource[AsyncSender], owner: type) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, resource: None, owner: type) -> "Streaming[P, T]": ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        if resource is None:
            return self

        @wraps(self.build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource._sender.stream(self.build(*args, **kwargs))

        return method


def given(**params: Any) -> dict[str, Any]:
    """Those parameters that are not None."""
    return {name: value for name, value in params.items() if value is not None}
