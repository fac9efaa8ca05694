"""Names and messages that are markup are shown as text, on every page."""

import pytest
from playwright.async_api import Page, expect

from service.db.tables import Job
from tests.dashboard.backend import Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")

MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>{{1}}'


async def test_what_a_job_says_is_never_run(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running(MARKUP)
    async with backend.database.transaction() as session:
        job = await session.get_one(Job, driver.job_id)
        job.spec = job.spec | {"metadata": {MARKUP[:20]: MARKUP}, "model": {"source": f"javascript:{MARKUP}"}}
    await expect(signed_in.locator(f"a[href='/jobs/{driver.job_id}']").filter(has_text=MARKUP)).to_be_visible()

    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    await driver.event("reference.scored", MARKUP, data={MARKUP: MARKUP, "message": MARKUP})
    await driver.event("health.alarm", MARKUP, data={"alarm": MARKUP, "advice": MARKUP})
    await driver.metrics(1, **{"loss": 0.5, f"loss/{MARKUP}": 0.25, "loss/sigmoid": 0.25})
    await driver.progress("train", 1, 2, "<b>steps</b>")
    await expect(signed_in.get_by_role("figure", name="Loss")).to_be_visible()
    await driver.fail(code="odd", message=MARKUP, fault="user", stage="train", log_tail=[MARKUP])
    await expect(signed_in.get_by_text(MARKUP).first).to_be_visible()
    await expect(signed_in.get_by_text("odd").first).to_be_visible()

    assert await signed_in.evaluate("window.hacked") is None
    assert await signed_in.locator("main img, main script").count() == 0
    assert await signed_in.locator("a[href^='javascript:']").count() == 0
