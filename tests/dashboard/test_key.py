"""How the dashboard gets, keeps and gives up the API key."""

import pytest
from playwright.async_api import Page, expect

from service.keys.service import create_key, revoke_key
from tests.dashboard.backend import PROJECT, Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_without_a_key_a_form_asks_and_a_wrong_key_is_refused_in_words(page: Page, backend: Backend) -> None:
    await page.goto(backend.url)
    await page.get_by_label("Key").fill("pk-wrong")
    await page.get_by_role("button", name="Open the dashboard").click()

    await expect(page.get_by_role("alert")).to_contain_text("A valid API key is required")

    await page.get_by_label("Key").fill(backend.key)
    await page.get_by_role("button", name="Open the dashboard").click()

    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_a_key_in_the_fragment_is_kept_and_leaves_the_address_bar(page: Page, backend: Backend) -> None:
    await page.goto(f"{backend.url}/#key={backend.key}")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()

    assert backend.key not in page.url

    await page.goto("about:blank")
    await page.goto(backend.url)
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_a_key_that_is_revoked_brings_the_form_back(page: Page, backend: Backend) -> None:
    async with backend.database.transaction() as session:
        row, key = await create_key(session, project_id=PROJECT, name="short-lived")
    await page.goto(f"{backend.url}/#key={key}")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()

    async with backend.database.transaction() as session:
        await revoke_key(session, row.id)

    await expect(page.get_by_role("alert")).to_have_text("The key in use is no longer accepted.")
    await expect(page.get_by_label("Key")).to_be_visible()


async def test_forgetting_the_key_leaves_nothing_in_the_browser(signed_in: Page) -> None:
    await signed_in.get_by_role("button", name="Forget key").click()

    await expect(signed_in.get_by_label("Key")).to_be_visible()
    assert await signed_in.evaluate("localStorage.length") == 0
