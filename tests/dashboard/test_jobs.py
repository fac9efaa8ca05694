"""The list of jobs."""

import pytest
from playwright.async_api import Page, expect

from service.keys.service import create_key
from tests.dashboard.backend import Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_an_empty_list_says_how_to_send_the_first_job(page: Page, backend: Backend) -> None:
    async with backend.database.transaction() as session:
        _, key = await create_key(session, project_id="newcomer", name="test")

    await page.goto(f"{backend.url}/#key={key}")

    await expect(page.get_by_text("No jobs yet.")).to_be_visible()
    await expect(page.get_by_text("plumbline submit job.yaml")).to_be_visible()


async def test_jobs_come_and_move_while_the_list_is_open(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("list-live", losses=[{"type": "sigmoid", "beta": 0.3}])
    row = signed_in.get_by_role("link").filter(has_text="list-live")
    await expect(row).to_contain_text("sigmoid (beta 0.3)")
    await expect(row).to_contain_text("running")

    await driver.progress("train", 3, 12, "steps")
    await expect(row).to_contain_text("train: 3 of 12 steps")

    await driver.fail(code="disk_full", message="No space is left.", fault="user", stage="train")
    await expect(row).to_contain_text("disk_full")


async def test_older_jobs_are_shown_on_request(signed_in: Page, backend: Backend) -> None:
    names = [f"page-{index}" for index in range(21)]
    for name in names:
        await backend.queued(name)
    await expect(signed_in.get_by_text(names[-1], exact=True)).to_be_visible()
    await expect(signed_in.get_by_text(names[0], exact=True)).not_to_be_visible()

    await signed_in.get_by_role("button", name="Show older jobs").click()

    await expect(signed_in.get_by_text(names[0], exact=True)).to_be_visible()
