"""One question to a model or judge, asked again while that may help."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from service.evaluations.targets import Target
from service.settings import Settings
from service.spec.secrets import HIDDEN, redact
from service.text import storable

_MAX_BYTES = 8 * 2**20  # of an answer
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_LONGEST_RETRY_AFTER_S = 900.0
_CONNECT_S = 30.0
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_BUSY = frozenset({429, 502, 503, 504, 529})  # says nothing of the question
_OF_THE_SERVER = frozenset({401, 403, 404, 405})  # the same for every question


@dataclass(frozen=True)
class Reply:
    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    engine: str | None


class Unanswered(Exception):
    """This question got no answer, and others may; the message says why."""


class Unusable(Exception):
    """No question to this server will be answered as things are; the message says why."""


class Away(Exception):
    """No question to this server is answered now, and later ones may be; the message says why, and `retry_after_s` when
    if the server did."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class _Passing(Exception):
    """Asking again may help. away: it is the server, whatever the question."""

    def __init__(self, message: str, retry_after_s: float | None = None, *, away: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.away = away


@dataclass
class Pace:
    """Of one server: until when it has asked to be left alone (a monotonic clock), for all questions alike."""

    until: float = 0.0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def wait(self) -> None:
        if (rest := self.until - time.monotonic()) > 0:
            await asyncio.sleep(rest)
            await self.wait()  # it may have asked for more

    def hold(self, seconds: float) -> None:
        self.until = max(self.until, time.monotonic() + seconds)


async def ask(client: httpx.AsyncClient, settings: Settings, target: Target, body: dict[str, Any], pace: Pace) -> Reply:
    """Asks up to `settings.evaluation_max_tries` times, as far apart as the server says (Retry-After), or twice as far
    each time. Raises Unanswered, Away and Unusable.

    body: of a chat completion, or of a completion for a target that takes no messages; without the model's name.
    """
    for tried in range(1, settings.evaluation_max_tries + 1):
        await pace.wait()
        try:
            async with pace.slots, asyncio.timeout(settings.evaluation_timeout_s):
                return await _once(client, target, body)
        except TimeoutError:
            passing = _Passing(f"{target.who} did not answer within {settings.evaluation_timeout_s:g} s")
        except httpx.HTTPError as error:
            message = f"{target.who} cannot be reached or understood: {str(error) or type(error).__name__}"
            passing = _Passing(message, away=isinstance(error, httpx.ConnectError | httpx.ConnectTimeout))
        except _Passing as error:
            passing = error
        if passing.retry_after_s is not None:
            pace.hold(min(passing.retry_after_s, _LONGEST_RETRY_AFTER_S))
        elif tried < settings.evaluation_max_tries:
            longest = min(_FIRST_WAIT_S * 2.0 ** (tried - 1), _LONGEST_WAIT_S)
            await asyncio.sleep(longest * random.uniform(0.5, 1))  # noqa: S311 - nothing to guess here
    message = f"{passing}; asked {settings.evaluation_max_tries} times"
    if passing.away:
        raise Away(message, min(passing.retry_after_s or 0.0, _LONGEST_RETRY_AFTER_S))
    raise Unanswered(message)


async def _once(client: httpx.AsyncClient, target: Target, body: dict[str, Any]) -> Reply:
    content = body | {"model": target.model, "stream": False}
    timeout = httpx.Timeout(None, connect=_CONNECT_S)  # whose server is up takes its time
    request = client.build_request("POST", target.url, json=content, headers=target.headers, timeout=timeout)
    response = await client.send(request, stream=True)
    try:
        answer = await _content(target, response)
    finally:
        await response.aclose()
    if response.is_success:
        return _reply(target, answer)
    said = redact(_reason(answer))
    message = f"{target.who} answered {response.status_code}: {said}"
    if response.status_code in _PASSING:
        retry_after_s = _retry_after_s(response.headers.get("retry-after"))
        raise _Passing(message, retry_after_s, away=response.status_code in _BUSY)
    if response.status_code in _OF_THE_SERVER or response.is_redirect:
        raise Unusable(message)
    raise Unanswered(message)


async def _content(target: Target, response: httpx.Response) -> bytes:
    content = bytearray()
    async for block in response.aiter_bytes():
        content += block
        if len(content) > _MAX_BYTES:
            raise Unanswered(f"{target.who} answered more than {_MAX_BYTES} bytes")
    key = target.headers.get("Authorization", "").removeprefix("Bearer ").encode()
    whole = bytes(content)
    return whole.replace(key, HIDDEN.encode()) if key else whole  # a server may quote what it was sent


def _reply(target: Target, content: bytes) -> Reply:
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text = choice["message"]["content"] if target.chat else choice["text"]
        if text is None and "message" in choice:  # all of it was thought, or refused
            text = choice["message"].get("refusal") or ""
        if not isinstance(text, str):
            raise TypeError("the text is none")
        usage = answer.get("usage") or {}
        return Reply(
            text=str(storable(text)),
            finish_reason=_short(choice.get("finish_reason"), 40),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            engine=_short(answer.get("system_fingerprint") or answer.get("model"), 200),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _Passing(f"{target.who} answered what is no completion ({type(error).__name__})") from error


def _reason(content: bytes) -> str:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return str(storable(content[:300].decode(errors="replace")))
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(storable(str(error.get("message", error) if isinstance(error, dict) else error)))[:300]


def _retry_after_s(value: str | None) -> float | None:
    """Of the header, in either of its forms (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.isdecimal():
        return float(value[:6])
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _short(value: Any, most: int) -> str | None:
    return str(storable(value))[:most] if isinstance(value, str) else None
