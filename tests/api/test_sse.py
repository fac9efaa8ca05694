import asyncio

import httpx
import pytest

from api import sse


async def test_a_query_in_progress_is_finished_though_its_reader_goes() -> None:
    asked, answer, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def poll() -> sse.News:
        asked.set()
        await answer.wait()
        finished.set()
        return sse.News()

    reading = asyncio.ensure_future(anext(sse.follow(poll, lifetime_s=60)))
    await asyncio.wait_for(asked.wait(), 5)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    answer.set()
    await asyncio.wait_for(finished.wait(), 5)


async def test_the_dashboard_is_served_where_no_route_is(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    script = await client.get("/app.js")
    assert "javascript" in script.headers["content-type"]
    assert (await client.get("/docs")).status_code == 200
