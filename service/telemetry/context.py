"""Fields that every log line carries while something is being worked on: a request, a job, an attempt."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_fields: ContextVar[dict[str, str] | None] = ContextVar("log_fields", default=None)


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Within the block, log lines have `fields` too; those of an outer block stay."""
    token = _fields.set((_fields.get() or {}) | fields)
    try:
        yield
    finally:
        _fields.reset(token)


def add(**fields: str) -> None:
    """Add to the innermost block, also for what runs around the caller, such as a middleware. Outside of any: nothing.

    The dictionary is changed in place, because a task or thread has its own copy of the context but not of the fields.
    """
    fields_now = _fields.get()
    if fields_now is not None:
        fields_now.update(fields)


def current() -> dict[str, str]:
    return _fields.get() or {}
