"""One API process and one Chromium for the package; a fresh browser profile for each test."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from service.db.migrate import upgrade
from service.db.session import Database
from service.keys.service import create_key
from tests.dashboard.backend import PROJECT, ApiProcess, Backend, settings_in
from tests.dashboard.serve import Engines

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

ABORTED = "ERR_ABORTED"

PATIENCE_S = 30  # for what should come at once, on a machine with other things to do

expect.set_options(timeout=1000 * PATIENCE_S)


def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("The dashboard's tests need Chromium: 'apt-get install chromium', or set CHROMIUM to its path.")
    return found


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    executable = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plumbline")


@pytest.fixture(scope="package")
def running_engines() -> Iterator[Engines]:
    with Engines().listening() as engines:
        yield engines


@pytest.fixture
def engines(running_engines: Engines) -> Iterator[Engines]:
    """Without answers yet, and holding back all but the first token."""
    running_engines.answers, running_engines.asked = {}, []
    running_engines.go_on.clear()
    yield running_engines
    running_engines.go_on.set()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def backend(home: Path, running_engines: Engines) -> AsyncIterator[Backend]:
    settings = settings_in(home, serve_url=running_engines.url)
    await asyncio.to_thread(upgrade, settings.sqlalchemy_url)
    database = Database(settings.sqlalchemy_url)
    async with database.transaction() as session:
        _, key = await create_key(session, project_id=PROJECT, name="test")
    api = ApiProcess(settings)
    api.start()
    yield Backend(settings, api, database, key)
    api.kill()
    await database.close()


def watch(page: Page, *allowed: str) -> list[str]:
    """What goes wrong on the page from here on: errors in the console, exceptions, and requests that fail or that the
    API refuses; but for those whose text has one of `allowed` in it."""
    errors: list[str] = []

    def note(text: str) -> None:
        if not any(one in text for one in allowed):
            errors.append(text)

    page.on("pageerror", lambda error: note(str(error)))
    page.on("console", lambda message: note(message.text) if message.type == "error" else None)
    page.on("response", lambda answer: note(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    # A request that its page gave up, such as a stream, has not failed.
    page.on("requestfailed", lambda asked: None if ABORTED in (asked.failure or "") else note(f"{asked.failure}"))
    return errors


@pytest_asyncio.fixture(loop_scope="package")
async def page(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """An empty page without a session. The test fails if anything goes wrong on it that the marker `expects_errors`
    does not name."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    marker = request.node.get_closest_marker("expects_errors")
    errors = watch(page, *(marker.args if marker else ()))
    yield page
    await context.close()
    assert errors == []


@pytest_asyncio.fixture(loop_scope="package")
async def signed_in(page: Page, backend: Backend) -> Page:
    await page.goto(f"{backend.url}/#key={backend.key}")
    await expect(page.get_by_role("button", name="Sign out")).to_be_attached()
    return page
