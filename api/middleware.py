"""What holds for every request: what a JSON body may be, and what a browser may do with an answer."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dashboard_files import script_sources
from api.json_bodies import check_json
from api.problems import error_response
from service.errors import InvalidRequest, TooLarge

_REST = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
_CSP = f"{_REST}; script-src {script_sources()}"
# Swagger UI starts itself with an inline script; nothing of ours is on that page.
_CSP_DOCS = f"{_REST}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"


class BodyLimit:
    """Reads a body before the app does, and answers 413 past the limit, whether or not a Content-Length announced it,
    and 422 for JSON that `check_json` refuses.

    Bodies are JSON and small, so they are held; paths whose bodies are streams count for themselves.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, internal_max_bytes: int, streamed: re.Pattern[str]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._internal_max_bytes = internal_max_bytes
        self._streamed = streamed  # paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._streamed.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        is_internal = scope["path"].startswith("/internal/")
        limit = self._internal_max_bytes if is_internal else self._max_bytes
        announced = Headers(scope=scope).get("content-length", "0")
        messages: list[Message] = []
        size = int(announced[:20]) if announced.isdecimal() else 0
        if size <= limit:
            size = 0
            more = True
            while more and size <= limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                messages.append(message)
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
        if size > limit:
            too_large = TooLarge(f"This body may have {limit} bytes at most.")
            await error_response(Request(scope), too_large)(scope, receive, send)
            return
        if not is_internal:  # attempts report what their libraries say, such as a loss that is NaN
            try:
                check_json(b"".join(message.get("body", b"") for message in messages))
            except InvalidRequest as error:
                await error_response(Request(scope), error)(scope, receive, send)
                return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)


class SecurityHeaders:
    """Nothing of another origin runs in our pages, nothing guesses a type, and no answer to a key is kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                # a report brings a stricter one
                headers.setdefault("Content-Security-Policy", _CSP_DOCS if scope["path"] == "/docs" else _CSP)
                # The dashboard's files are asked for again with their ETag, so that an upgrade is seen at once.
                is_ours = scope["path"].startswith(("/v1/", "/internal/"))
                headers["Cache-Control"] = "no-store" if is_ours else "no-cache"
            await send(message)

        await self._app(scope, receive, send_with_headers)
