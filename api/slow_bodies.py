"""How slowly a request's body may come."""

import asyncio
import time
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import error_response
from service.errors import TooSlow


@dataclass(frozen=True)
class Pace:
    """How slow a body may be: `silence_s` without a byte, and after `grace_s` no slower than `bytes_per_s` on average.

    Only time spent waiting for the client counts.
    """

    silence_s: float = 30
    grace_s: float = 30
    bytes_per_s: float = 4096

    def patience_s(self, waited_s: float, received: int) -> float:
        return min(self.silence_s, self.grace_s + received / self.bytes_per_s - waited_s)


class SlowBodies:
    """Answers 408 where a body does not keep pace. Whoever reads it meets TooSlow, and lets go of what it had."""

    def __init__(self, app: ASGIApp, *, pace: Pace) -> None:
        self._app = app
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        waited_s = 0.0
        received = 0
        ended = started = False

        async def receive_in_time() -> Message:
            nonlocal waited_s, received, ended
            if ended:
                return await receive()  # a disconnect: streams wait for it as long as they last
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._pace.patience_s(waited_s, received)):
                    message = await receive()
            except TimeoutError:
                raise TooSlow(
                    f"{received} bytes of the body came, and no more in time; nothing was kept. Send it again."
                ) from None
            waited_s += time.monotonic() - began
            received += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            return message

        async def send_noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive_in_time, send_noting)
        except TooSlow as error:  # where no route was reached
            if started:
                raise
            await error_response(Request(scope), error)(scope, receive, send)
