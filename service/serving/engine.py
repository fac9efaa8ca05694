"""Asking an engine: vLLM behind Ray Serve, which speaks OpenAI's API.

Whoever stops waiting closes the connection, and that ends the generation. `who` is what errors call the model.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from service.errors import InvalidRequest, ServiceError, ServingUnavailable

# The first token waits for whatever else the engine is generating; connecting should not.
_BETWEEN_TOKENS = httpx.Timeout(120, connect=5)
_WHOLE_ANSWER = httpx.Timeout(600, connect=5)  # as long as OpenAI's package waits


async def ask(client: httpx.AsyncClient, url: str, body: dict[str, Any], who: str) -> dict[str, Any]:
    """The whole answer. Raises InvalidRequest for what the engine refuses, and ServingUnavailable if it does not
    answer."""
    try:
        response = await client.post(url, json=body, timeout=_WHOLE_ANSWER)
    except httpx.HTTPError as error:
        raise _broke_off(who, error) from error
    if response.status_code != httpx.codes.OK:
        raise _refusal(who, response.status_code, response.content)
    return _parsed(who, response.text)


async def stream(
    client: httpx.AsyncClient, url: str, body: dict[str, Any], who: str
) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of a streamed answer, to its proper end. Raises as `ask` does, at any chunk."""
    try:
        async with client.stream("POST", url, json=body, timeout=_BETWEEN_TOKENS) as response:
            if response.status_code != httpx.codes.OK:
                raise _refusal(who, response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                chunk = _parsed(who, data)
                if "error" in chunk:  # the engine failed after the stream had begun
                    raise _refusal(who, int(chunk["error"].get("code") or 500), data.encode())
                yield chunk
    except httpx.HTTPError as error:
        raise _broke_off(who, error) from error
    raise ServingUnavailable(f"The {who} model's answer broke off before its end: try again.")


def _parsed(who: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ServingUnavailable(f"The {who} model's answer cannot be read: try again.") from error
    if not isinstance(value, dict):
        raise ServingUnavailable(f"The {who} model's answer is no JSON object: try again.")
    return value


def _broke_off(who: str, error: httpx.HTTPError) -> ServingUnavailable:
    return ServingUnavailable(f"The {who} model broke off ({type(error).__name__}): try again.")


def _refusal(who: str, status: int, body: bytes) -> ServiceError:
    if status in (400, 422):
        return InvalidRequest(f"The {who} model refused the request: {_reason(body)}")
    return ServingUnavailable(f"The {who} model does not answer (status {status}): try again, or deploy it again.")


def _reason(body: bytes) -> str:
    """The engine's own words, as vLLM and Ray Serve spell them."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body[:500].decode(errors="replace")
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]
