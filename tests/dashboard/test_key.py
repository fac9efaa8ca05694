"""Signing in: how the dashboard gets a session for a key, and gives it up."""

import asyncio

import pytest
from playwright.async_api import Page, Route, expect

from service.keys.service import create_key, revoke_key
from tests.dashboard.backend import PROJECT, Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.expects_errors("401")
async def test_without_a_session_a_form_asks_and_a_wrong_key_is_refused_in_words(page: Page, backend: Backend) -> None:
    await page.goto(backend.url)
    await page.get_by_label("Key").fill("pk-wrong")
    await page.get_by_role("button", name="Sign in").click()

    await expect(page.get_by_role("alert")).to_contain_text("A valid API key is required")

    await page.get_by_label("Key").fill(backend.key)
    await page.get_by_role("button", name="Sign in").click()

    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_a_key_in_the_fragment_leaves_the_address_bar_and_is_kept_nowhere_that_a_script_can_read(
    page: Page, backend: Backend
) -> None:
    await page.goto(f"{backend.url}/#key={backend.key}")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()

    assert backend.key not in page.url
    kept = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert "pk-" not in kept
    assert "plumbline_session" not in kept

    await page.goto("about:blank")
    await page.goto(backend.url)
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


@pytest.mark.expects_errors("401")
async def test_a_key_that_is_revoked_brings_the_form_back(page: Page, backend: Backend) -> None:
    async with backend.database.transaction() as session:
        row, key = await create_key(session, project_id=PROJECT, name="short-lived")
    await page.goto(f"{backend.url}/#key={key}")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()

    async with backend.database.transaction() as session:
        await revoke_key(session, row.id)

    await expect(page.get_by_role("alert")).to_contain_text("its key is no longer accepted")
    await expect(page.get_by_label("Key")).to_be_visible()


async def test_signing_out_ends_the_session_on_the_server_and_in_other_tabs(signed_in: Page, backend: Backend) -> None:
    await expect(signed_in.get_by_role("heading", name="Jobs")).to_be_visible()
    other = await signed_in.context.new_page()
    await other.goto(f"{backend.url}/queue")
    await expect(other.get_by_role("heading", name="Queue")).to_be_visible()
    cookies = await signed_in.context.cookies()

    await signed_in.get_by_role("button", name="Sign out").click()

    await expect(signed_in.get_by_label("Key")).to_be_visible()
    await expect(other.get_by_label("Key")).to_be_visible()
    await signed_in.context.add_cookies([cookie for cookie in cookies if cookie["name"] == "plumbline_session"])  # type: ignore[list-item, misc]
    answer = await signed_in.context.request.get(f"{backend.url}/v1/jobs")
    assert answer.status == 401


async def test_what_a_page_still_asks_for_is_given_up_before_the_session_ends(signed_in: Page) -> None:
    """It would be refused otherwise, and the page say so to one who meant to leave."""
    held: asyncio.Queue[Route] = asyncio.Queue()
    await expect(signed_in.get_by_role("heading", name="Jobs")).to_be_visible()
    await signed_in.route("**/v1/jobs?*", held.put)
    await held.get()
    await signed_in.route("**/v1/session", held.put)

    soon = 15_000  # ms, before the page gives up waiting for the answer
    async with signed_in.expect_event("requestfailed", lambda request: "/v1/jobs?" in request.url, timeout=soon):
        await signed_in.get_by_role("button", name="Sign out").click()

    ending = await held.get()
    assert ending.request.method == "DELETE"
    await expect(signed_in.get_by_role("status")).to_have_text("Signing out…")
    await ending.continue_()
    await expect(signed_in.get_by_label("Key")).to_be_visible()
    await expect(signed_in.get_by_role("alert")).to_have_count(0)
