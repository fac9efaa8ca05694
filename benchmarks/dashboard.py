"""The dashboard in Chromium: how soon the list of jobs can be used, and how smooth thousands of them scroll.

    make bench-dashboard      (or: python benchmarks/dashboard.py --jobs 5000)

Starts the API on a database of ended jobs, each with a loss line, and drives Chromium (headless, 1440 x 900, loopback).
First use is from the start of the navigation, with an empty cache, to the first row that can be clicked. Long tasks are
those that hold the page's thread for more than 50 ms (W3C Long Tasks API).
"""

import argparse
import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.dashboard, when run as a script

from api.cli.processes import free_port
from service.clock import utc_now
from service.db.migrate import upgrade
from service.db.session import Database
from service.db.tables import Job
from service.ids import new_id
from service.jobs.states import JobState
from service.keys.service import create_key
from service.settings import Settings
from service.spec import AlignmentJob
from tests.dashboard.backend import ApiProcess
from tests.dashboard.conftest import CHROMIUM_FLAGS, chromium

OPENINGS = 5
PATIENCE_S = 120
WHEEL = 600  # pixels of one turn, every 50 ms
# run before the page's own scripts; its content security policy lets no later ones be made
WATCH = """
window.long = [];
new PerformanceObserver((list) => window.long.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask", buffered: true });
window.rows = 0;
setInterval(() => (window.rows = Math.max(window.rows, document.querySelectorAll("tbody tr").length)), 100);
new MutationObserver(() => {
  if (document.querySelector("tbody .what a")) window.firstRow ??= performance.now();
}).observe(document, { childList: true, subtree: true });
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as home:
        settings = Settings(home=Path(home), port=free_port(), secret=secrets.token_hex(), requests_per_minute=100_000)
        upgrade(settings.sqlalchemy_url)
        api = ApiProcess(settings)
        try:
            asyncio.run(measure(settings, api, arguments.jobs))
        finally:
            api.kill()


async def measure(settings: Settings, api: ApiProcess, num_jobs: int) -> None:
    database = Database(settings.sqlalchemy_url)
    key = await fill(database, num_jobs)
    await database.close()
    await asyncio.to_thread(api.start)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        opened = [await first_use(browser, settings.public_url, key) for _ in range(OPENINGS)]
        seconds = sorted(one for one, _ in opened)
        print(
            f"first use of {num_jobs} jobs: median {1000 * statistics.median(seconds):.0f} ms "
            f"({1000 * seconds[0]:.0f} to {1000 * seconds[-1]:.0f}), {opened[0][1] / 1000:.0f} kB transferred"
        )
        await scroll(browser, settings.public_url, key, num_jobs)
        await browser.close()


async def fill(database: Database, num_jobs: int) -> str:
    """Returns a key of the project that has the jobs."""
    asked = {"model": "/models/tiny", "data": {"train": "file-" + "0" * 21}}
    spec = AlignmentJob.model_validate(asked).model_dump(mode="json")
    like: dict[str, Any] = {
        "project_id": "bench",
        "body_sha256": "0" * 64,
        "progress": {},
        "num_attempts": 1,
        "last_event": 0,
        "last_metric": 0,
        "loss_line": {"stride": 1, "points": [[step, 0.7 / step] for step in range(1, 65)]},
        **dict.fromkeys(("created_at", "started_at", "finished_at"), utc_now()),
    }
    async with database.transaction() as session:
        for index, id in enumerate(sorted(new_id("job") for _ in range(num_jobs))):
            state = JobState.FAILED if index % 3 == 0 else JobState.SUCCEEDED
            session.add(Job(id=id, spec=spec | {"name": f"job {index}"}, state=state, **like))
        _, key = await create_key(session, project_id="bench", name="bench")
    return key


async def signed_in(browser: Browser, url: str, key: str) -> Page:
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(1000 * PATIENCE_S)
    await context.add_init_script(WATCH)
    page = await context.new_page()
    await page.goto(f"{url}/#key={key}")
    await page.locator("tbody .what a").first.wait_for()
    return page


async def first_use(browser: Browser, url: str, key: str) -> tuple[float, int]:
    """(seconds, bytes on the wire) of a signed-in browser that has nothing cached."""
    page = await signed_in(browser, url, key)
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Network.enable")
    await devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    transferred: list[float] = []
    devtools.on("Network.loadingFinished", lambda event: transferred.append(event["encodedDataLength"]))
    await page.goto(f"{url}/jobs")
    await page.locator("tbody .what a").first.wait_for()
    sent = int(sum(transferred))
    seconds = float(await page.evaluate("window.firstRow")) / 1000
    await page.context.close()
    return seconds, sent


async def scroll(browser: Browser, url: str, key: str, num_jobs: int) -> None:
    """From the newest to the oldest job with the wheel, then a search among all of them."""
    page = await signed_in(browser, url, key)
    await page.evaluate("window.long = []")
    end = page.locator(".list-end")
    await page.mouse.move(700, 500)
    begun = time.monotonic()
    while not (await end.inner_text()).startswith(f"{num_jobs:,} job"):
        await page.mouse.wheel(0, WHEEL)
        await asyncio.sleep(0.05)
    took_s = time.monotonic() - begun
    long = [float(one) for one in await page.evaluate("window.long")]
    print(
        f"scrolled through {num_jobs} jobs in {took_s:.0f} s: at most {await page.evaluate('window.rows')} rows in the "
        f"page, {len(long)} long tasks, {sum(long):.0f} ms in all, the longest {max(long, default=0):.0f} ms"
    )
    await page.evaluate("scrollTo(0, 0)")
    begun = time.monotonic()
    await page.get_by_role("searchbox").fill(f"job {num_jobs // 2}")
    await page.get_by_role("link", name=f"job {num_jobs // 2}", exact=True).wait_for()
    print(
        f"search among {num_jobs} jobs: {1000 * (time.monotonic() - begun):.0f} ms, 250 of them the rest after typing"
    )


if __name__ == "__main__":
    main()
