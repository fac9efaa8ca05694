"""Whether adapters answer. An engine runs before it has read any, and a damaged one shows when it is first asked."""

from collections.abc import Sequence

import httpx

from service.serving.engine import reason
from service.serving.placement import Place
from service.settings import Settings

_TIMEOUT = httpx.Timeout(120, connect=5)  # the engine may be busy with others


class AdapterRefused(ValueError):
    """The engine cannot serve the adapter; the message says why."""


async def probe(settings: Settings, places: Sequence[Place]) -> bool:
    """Ask each adapter for one token: False if the engine cannot be asked now. Raises AdapterRefused."""
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
        for place in places:
            if place.is_adapter and not await _answers(client, settings, place):
                return False
    return True


async def _answers(client: httpx.AsyncClient, settings: Settings, place: Place) -> bool:
    url = f"{settings.serve_url.rstrip('/')}/{place.engine}/v1/completions"
    try:
        answer = await client.post(url, json={"model": place.model, "prompt": "a", "max_tokens": 1})
    except httpx.TransportError:
        return False
    if answer.status_code in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS):
        return False
    if answer.is_error:
        raise AdapterRefused(f"The adapter cannot be served on {place.weights}: {reason(answer.content)}")
    return True
