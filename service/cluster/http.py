"""The connection to Ray's dashboard, and what can go wrong with it."""

from typing import Any

import httpx

from service.settings import Settings

# Ray's dashboard answers from other processes of its own, the first time after it has started them.
_TIMEOUT_S = httpx.Timeout(30, connect=5)


class ClusterError(Exception):
    """The cluster did not do what it was asked; the message is for people."""


class ClusterUnavailable(ClusterError):
    """Ray does not answer, or not yet: asking again later is the right thing."""


class ClusterRefused(ClusterError):
    """Ray answered with an error. `status` is its HTTP status; the message holds what Ray said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def connect(settings: Settings) -> httpx.AsyncClient:
    """A client for `settings.ray_url` with `settings.ray_token`, past any proxy; close it with `aclose`."""
    headers = {}
    if settings.ray_token is not None:
        headers["Authorization"] = f"Bearer {settings.ray_token.get_secret_value()}"
    return httpx.AsyncClient(base_url=settings.ray_url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)


async def request(client: httpx.AsyncClient, method: str, path: str, **kwargs: Any) -> httpx.Response:
    """Send and return the answer, whatever its status below 400.

    Raises ClusterUnavailable when there is no answer or the answer is 502 to 504, ClusterRefused for other errors.
    """
    try:
        response = await client.request(method, path, **kwargs)
    except httpx.TransportError as error:
        raise _no_answer(client, error) from error
    _check(response)
    return response


async def end_of(client: httpx.AsyncClient, path: str, *, max_bytes: int, **kwargs: Any) -> str:
    """The last `max_bytes` of the text at `path`, however long it is. Raises as `request`."""
    end = b""
    try:
        async with client.stream("GET", path, **kwargs) as response:
            if response.is_error:
                await response.aread()
            _check(response)
            async for part in response.aiter_bytes():
                end = (end + part)[-max_bytes:]
    except httpx.TransportError as error:
        raise _no_answer(client, error) from error
    return end.decode(errors="replace")


def _no_answer(client: httpx.AsyncClient, error: httpx.TransportError) -> ClusterUnavailable:
    return ClusterUnavailable(f"Ray does not answer at {client.base_url}: {str(error) or type(error).__name__}")


def _check(response: httpx.Response) -> None:
    if response.status_code in {502, 503, 504}:
        raise ClusterUnavailable(f"Ray is not ready ({response.status_code}): {_last_line(response.text)}")
    if response.status_code in {401, 403}:
        raise ClusterRefused(response.status_code, "Ray refuses the token: PLUMBLINE_RAY_TOKEN must be the cluster's.")
    if response.is_error:
        raise ClusterRefused(response.status_code, _last_line(response.text))


def _last_line(text: str) -> str:
    """Ray answers with a traceback, whose last line says what is the matter."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
    return lines[-1][:1000] if lines else "no message"
