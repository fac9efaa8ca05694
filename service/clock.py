"""The one way to ask for the time."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)
