import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from api.app import create_app
from service.settings import Settings
from tests.api.conftest import problem


@pytest.fixture
async def limited(settings: Settings, ada: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings.model_copy(update={"requests_per_minute": 3}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", headers=ada) as client,
    ):
        yield client


async def test_the_fourth_request_of_a_minute_is_told_when_to_come_back(
    limited: httpx.AsyncClient, bob: dict[str, str]
) -> None:
    answers = await asyncio.gather(*(limited.get("/v1/jobs") for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 429]
    (refused,) = [answer for answer in answers if answer.status_code == 429]
    assert problem(refused, 429, "rate_limited")["retry_after_s"] == int(refused.headers["Retry-After"])
    assert 1 <= int(refused.headers["Retry-After"]) <= 20
    assert refused.headers["RateLimit-Policy"] == '"key";q=3;w=60'
    assert refused.headers["RateLimit"].startswith('"key";r=0;t=')
    assert (await limited.get("/v1/jobs", headers=bob)).headers["RateLimit"] == '"key";r=2;t=20'


async def test_openais_package_takes_it_for_a_rate_limit(limited: httpx.AsyncClient, ada: dict[str, str]) -> None:
    key = ada["Authorization"].removeprefix("Bearer ")
    package = openai.AsyncOpenAI(base_url="http://test/v1", api_key=key, max_retries=0, http_client=limited)
    for _ in range(3):
        await package.fine_tuning.jobs.list()
    with pytest.raises(openai.RateLimitError):
        await package.fine_tuning.jobs.list()
