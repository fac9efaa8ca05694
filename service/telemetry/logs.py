"""Logs of API and controller: JSON objects, one a line, or text for people; secrets hidden in both.

A record's fields are those of `service.telemetry.context` and of `extra=`.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from service.settings import Settings
from service.spec.secrets import HIDDEN, redact
from service.telemetry import context

# What a LogRecord has of itself; the rest came by `extra=`, but for what libraries add under names with a `_`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SHORTEST_SECRET = 6  # hiding each occurrence of less would hide words


def configure(settings: Settings, file: Path | None = None) -> None:
    """Set up the process's logging: to `file`, or to stderr. `settings.log_format` is by default JSON in production
    and text in development."""
    handler = logging.FileHandler(file) if file is not None else logging.StreamHandler()
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    for old in root.handlers:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for chatty in ("httpx", "alembic", "aiosqlite"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def formatter(settings: Settings) -> logging.Formatter:
    kind = settings.log_format or ("json" if settings.environment == "production" else "text")
    literals = held_secrets(settings)
    return JsonLines(literals) if kind == "json" else TextLines(literals)


class JsonLines(JsonFormatter):
    """`time` (RFC 3339, UTC), `level`, `logger`, `message`, the fields, and `exception` with its traceback."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__(rename_fields={"exc_info": "exception", "stack_info": "stack"})
        self._secrets = secrets

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data |= {"level": record.levelname.lower(), "logger": record.name}
        log_data.update(context.current())
        super().add_fields(log_data, record, message_dict)

    def format(self, record: logging.LogRecord) -> str:
        return _hide(super().format(record), self._secrets)


class TextLines(logging.Formatter):
    """For a terminal: the line, then the fields as `name=value`."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def formatMessage(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in _OWN and not name.startswith("_")}
        fields = context.current() | extra
        return super().formatMessage(record) + "".join(f" {name}={value}" for name, value in fields.items())

    def format(self, record: logging.LogRecord) -> str:
        return _hide(super().format(record), self._secrets)


def held_secrets(settings: Settings) -> list[str]:
    """The secrets that this process holds, to be hidden wherever they occur."""
    found = [
        secret.get_secret_value()
        for name in type(settings).model_fields
        if hasattr(secret := getattr(settings, name), "get_secret_value")
    ]
    try:
        password = make_url(settings.sqlalchemy_url).password
    except ArgumentError:  # which whoever opens the database reports
        password = None
    found += [password] if password else []
    return [secret for secret in found if len(secret) >= _SHORTEST_SECRET]


def _hide(line: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        line = line.replace(secret, HIDDEN)
    return redact(line)
