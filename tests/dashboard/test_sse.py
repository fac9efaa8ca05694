"""The event stream reader, in the browser it is written for."""

import json
import time

import pytest
from playwright.async_api import Page, Route, expect

from tests.dashboard.backend import Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")

READ = """
async ([text, size]) => {
  const { frames } = await import("/sse.js");
  const bytes = new TextEncoder().encode(text);
  const body = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
  const read = [];
  for await (const frame of frames(body)) read.push(frame);
  return read;
}
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("chunk_bytes", [1, 3, 1000])
async def test_frames_are_the_same_however_the_bytes_are_cut(
    page: Page, backend: Backend, newline: str, chunk_bytes: int
) -> None:
    lines = [
        ": keep-alive", "",
        "id: 7", "event: metric", 'data: {"text":', 'data:"žluťoučký 🐎"}', "",
        "event: job", "data: {}", "", "", ": ", "",
        "data: [1]", "",
        'data: "cut off at the end of the stream"',
    ]  # fmt: skip
    await page.goto(backend.url)

    assert await page.evaluate(READ, [newline.join(lines), chunk_bytes]) == [
        {"id": "7", "event": "metric", "data": {"text": "žluťoučký 🐎"}},
        {"event": "job", "data": {}},
        {"event": "message", "data": [1]},
    ]


async def test_a_hidden_page_holds_no_connection_and_catches_up_when_it_is_looked_at(
    signed_in: Page, backend: Backend
) -> None:
    driver = await backend.running("hidden")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    await expect(signed_in.get_by_text("Reading the rows.")).to_be_visible()
    hide = """hidden => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""

    await signed_in.evaluate(hide, True)
    requests: list[str] = []
    signed_in.on("request", lambda request: requests.append(request.url))
    await driver.event("checkpoint.saved", "while nobody looked")
    await signed_in.wait_for_timeout(1000 * backend.settings.stream_lifetime_s + 500)  # time to do wrong
    assert requests == []
    await expect(signed_in.get_by_text("while nobody looked")).not_to_be_visible()

    await signed_in.evaluate(hide, False)
    await expect(signed_in.get_by_text("while nobody looked")).to_be_visible()


@pytest.mark.expects_errors("429")
async def test_a_stream_that_is_refused_for_now_is_asked_for_again_when_the_api_said(
    signed_in: Page, backend: Backend
) -> None:
    driver = await backend.running("refused for now")
    asked_at: list[float] = []

    async def refuse_once(route: Route) -> None:
        asked_at.append(time.monotonic())
        if len(asked_at) > 1:
            await route.continue_()
            return
        body = {"title": "Too many streams", "status": 429, "detail": "Later.", "code": "too_many_streams"}
        headers = {"Retry-After": "2", "Content-Type": "application/problem+json"}
        await route.fulfill(status=429, headers=headers, body=json.dumps(body))

    await signed_in.route("**/events", refuse_once)
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    await expect(signed_in.get_by_text("Reading the rows.")).to_be_visible()
    assert asked_at[1] - asked_at[0] >= 2  # as it was told
