"""What is left of a key's rate limit, in the headers of every answer.

`RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers: q requests in w seconds, r are
left now, and all of them in t seconds.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.keys.rate_limit import Allowance


class RateLimitHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            allowance: Allowance | None = state.get("allowance")
            if message["type"] == "http.response.start" and allowance is not None:
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = f'"key";q={allowance.limit};w=60'
                headers["RateLimit"] = f'"key";r={allowance.remaining};t={allowance.full_in_s}'
            await send(message)

        await self._app(scope, receive, send_with_headers)
