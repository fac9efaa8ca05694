"""What a check says, and what it needs to look."""

from dataclasses import dataclass
from enum import StrEnum

import httpx

from service.db.session import Database
from service.settings import Settings


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, but not as well as it could, or not for long
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """fix: what to do about it; None where there is nothing to do."""

    verdict: Verdict
    message: str
    fix: str | None = None


def ok(message: str) -> Finding:
    return Finding(Verdict.OK, message)


def warning(message: str, fix: str) -> Finding:
    return Finding(Verdict.WARNING, message, fix)


def failed(message: str, fix: str) -> Finding:
    return Finding(Verdict.FAILED, message, fix)


@dataclass(frozen=True)
class Patient:
    """client: from `service.cluster.http.connect`."""

    settings: Settings
    database: Database
    client: httpx.AsyncClient
