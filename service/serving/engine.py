"""Asking an engine: vLLM behind Ray Serve, which speaks OpenAI's API.

Whoever stops waiting closes the connection, and that ends the generation. `who` is what errors call the model.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from service.errors import InvalidRequest, ServiceError, ServingUnavailable

# The first token waits for whatever else the engine is generating; connecting should not.
_BETWEEN_TOKENS = ClientTimeout(sock_read=120, sock_connect=5)
_WHOLE_ANSWER = ClientTimeout(sock_read=600, sock_connect=5)  # as long as OpenAI's package waits
_OK = 200


def engine_client() -> ClientSession:
    """For any number of answers at once. aiohttp, since httpx takes four times as long before it sends a request, and
    that delays each first token. Of the environment's proxies it knows none: Serve is on loopback or in the cluster."""
    return ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar())


async def ask(client: ClientSession, url: str, body: dict[str, Any], who: str) -> dict[str, Any]:
    """The whole answer. Raises InvalidRequest for what the engine refuses, and ServingUnavailable if it does not
    answer."""
    try:
        async with client.post(url, json=body, allow_redirects=False, timeout=_WHOLE_ANSWER) as response:
            content = await response.read()
    except (ClientError, TimeoutError) as error:
        raise _broke_off(who, error) from error
    if response.status != _OK:
        raise _refusal(who, response.status, content)
    return _parsed(who, content)


async def stream(
    client: ClientSession, url: str, body: dict[str, Any], who: str
) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of a streamed answer, to its proper end. Raises as `ask` does, at any chunk."""
    is_whole = False
    try:
        async with client.post(url, json=body, allow_redirects=False, timeout=_BETWEEN_TOKENS) as response:
            if response.status != _OK:
                raise _refusal(who, response.status, await response.read())
            async for line in _lines(response):
                if not line.startswith(b"data:"):
                    continue
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    is_whole = True  # and on to the end of the answer, so that the connection can be used again
                    continue
                chunk = _parsed(who, data)
                if "error" in chunk:  # the engine failed after the stream had begun
                    raise _refusal(who, int(chunk["error"].get("code") or 500), data)
                yield chunk
    except (ClientError, TimeoutError) as error:
        if not is_whole:
            raise _broke_off(who, error) from error
    if not is_whole:
        raise ServingUnavailable(f"The {who} model's answer broke off before its end: try again.")


async def _lines(response: ClientResponse) -> AsyncIterator[bytes]:
    """Of any length: aiohttp's own are limited."""
    begun = b""
    async for piece in response.content.iter_any():
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            yield line
    yield begun


def _parsed(who: str, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ServingUnavailable(f"The {who} model's answer cannot be read: try again.") from error
    if not isinstance(value, dict):
        raise ServingUnavailable(f"The {who} model's answer is no JSON object: try again.")
    return value


def _broke_off(who: str, error: ClientError | TimeoutError) -> ServingUnavailable:
    return ServingUnavailable(f"The {who} model broke off ({type(error).__name__}): try again.")


def _refusal(who: str, status: int, body: bytes) -> ServiceError:
    if status in (400, 422):
        return InvalidRequest(f"The {who} model refused the request: {reason(body)}")
    return ServingUnavailable(f"The {who} model does not answer (status {status}): try again, or deploy it again.")


def reason(body: bytes) -> str:
    """The engine's own words, as vLLM and Ray Serve spell them."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body[:500].decode(errors="replace")
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(error.get("message") or error.get("detail") or error if isinstance(error, dict) else error)[:500]
