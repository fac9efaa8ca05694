"""Every request gets an ID, a line in the log and a place in the metrics."""

import logging
import re
import time
from contextlib import nullcontext
from datetime import datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.clock import utc_now
from service.ids import is_id, new_id
from service.telemetry import context, metrics, traces

log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
# Asked for all the time by machines; their lines are for debugging.
_QUIET = ("/internal/", "/healthz", "/readyz", "/metrics")
_BROKEN_OFF = 499  # nobody was there any more to answer; nginx's number for it


def request_id(scope: Scope) -> str | None:
    """The request's ID, once the middleware has seen it."""
    found: str | None = scope.get("state", {}).get("request_id")
    return found


def arrived(request: Request) -> datetime:
    """When the request came, before it waited for anything."""
    at: datetime = request.state.arrived
    return at


class Telemetry:
    """The outermost middleware. The ID is the client's `X-Request-Id`, if it is one (1 to 64 letters, digits, `.`,
    `_` and `-`), else a new one; answers carry it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        id = given if _GIVEN.fullmatch(given) else new_id("req")
        scope.setdefault("state", {}).update(request_id=id, arrived=utc_now())
        started = time.perf_counter()
        status, seconds = _BROKEN_OFF, None

        async def send_noting(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - started
                MutableHeaders(scope=message)[HEADER] = id
            await send(message)

        # Attempts report every few seconds; their trace is the job's.
        traced = traces.request_span(scope["method"], Headers(scope=scope).get("traceparent"))
        with context.bound(request_id=id), nullcontext() if scope["path"].startswith(_QUIET) else traced as span:
            try:
                await self._app(scope, receive, send_noting)
            except BaseException:
                status = 500 if seconds is None else status
                raise
            finally:
                _tell(scope, span, status, time.perf_counter() - started if seconds is None else seconds)


def _tell(scope: Scope, span: Any, status: int, seconds: float) -> None:
    # The template, since a path is whatever a client sends.
    route = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    metrics.HTTP_SECONDS.labels(method, route, str(status)).observe(seconds)
    traces.end_request(span, route, method, status)
    fields: dict[str, Any] = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
    job_id = scope.get("path_params", {}).get("job_id", "")
    if is_id("job", job_id):
        fields["job_id"] = job_id
    level = logging.DEBUG if route.startswith(_QUIET) and status < 400 else logging.INFO
    log.log(level, "%s %s %s", method, route, status, extra=fields)
