"""Serving a job's models and asking both."""

import pytest
from playwright.async_api import Page, expect

from service.deployments import service as deployments
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState
from tests.dashboard.backend import Backend
from tests.dashboard.serve import Engines

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def served(page: Page, backend: Backend, name: str) -> None:
    """Opens the page of a job whose models are deployed, as far as the database knows."""
    driver = await backend.succeeded(name, serve=True)
    await backend.deployment(driver.job_id, DeploymentState.READY)
    await page.goto(f"{backend.url}/jobs/{driver.job_id}")
    await expect(page.get_by_text("Base and aligned model are being served.")).to_be_visible()


@pytest.mark.expects_errors("503")
async def test_a_comparison_while_nothing_is_served_says_so(signed_in: Page, backend: Backend) -> None:
    driver = await backend.succeeded("not served")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    await signed_in.get_by_label("Prompt").fill("Can you help me move?")
    await signed_in.get_by_role("button", name="Compare").click()

    alert = signed_in.get_by_role("alert")
    await expect(alert).to_contain_text("The models are not being served right now")
    await expect(alert).to_contain_text("serving_unavailable")
    await expect(signed_in.get_by_label("Prompt")).to_have_value("Can you help me move?")


async def test_serving_is_started_watched_and_stopped_from_the_page(signed_in: Page, backend: Backend) -> None:
    driver = await backend.succeeded("to serve")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

    await signed_in.get_by_role("button", name="Serve both models").click()
    await expect(signed_in.locator(".serving .state")).to_have_text("deploying")

    await backend.deployment(driver.job_id, DeploymentState.FAILED, "The engine ran out of memory.")
    await expect(signed_in.get_by_text("The engine ran out of memory.").first).to_be_visible()
    await signed_in.get_by_role("button", name="Try again").click()
    await expect(signed_in.locator(".serving .state")).to_have_text("deploying")

    await backend.deployment(driver.job_id, DeploymentState.READY)
    await expect(signed_in.locator(".serving .state")).to_have_text("ready")

    await signed_in.get_by_role("button", name="Stop serving").click()
    await expect(signed_in.locator(".serving .state")).to_have_text("removing")
    async with backend.database.transaction() as session:
        job = await JobRepository(session).get(driver.job_id)
        await deployments.removed(session, await deployments.get(session, job))
    await expect(signed_in.locator(".serving .state")).to_have_text("not served")


async def test_both_answers_appear_as_they_are_generated(signed_in: Page, backend: Backend, engines: Engines) -> None:
    engines.answers = {"base": ["No", ". Closed."], "aligned": ["I am <b>sorry</b>", ", we open at nine."]}
    await served(signed_in, backend, "both answers")
    await signed_in.get_by_label("Seed").fill("7")
    await signed_in.get_by_label("Prompt").fill("Are you open?")
    await signed_in.get_by_label("Prompt").press("Control+Enter")
    base, aligned = signed_in.locator("article.base .text"), signed_in.locator("article.aligned .text")

    await expect(base).to_have_text("No")
    await expect(aligned).to_have_text("I am <b>sorry</b>")
    engines.go_on.set()
    await expect(base).to_have_text("No. Closed.")
    await expect(aligned).to_have_text("I am <b>sorry</b>, we open at nine.")
    await expect(signed_in.locator("article.base small")).to_have_text("2 tokens, complete")
    await expect(signed_in.get_by_label("Seed")).to_have_value("7")
    await expect(signed_in.get_by_label("Tokens, at most")).to_have_value("256")
    assert {(asked["model"], asked["prompt"], asked["seed"]) for asked in engines.asked} == {
        ("base", "Are you open?", 7),
        ("aligned", "Are you open?", 7),
    }


async def test_a_side_that_fails_leaves_the_other_readable(signed_in: Page, backend: Backend, engines: Engines) -> None:
    engines.answers = {"base": ["No."]}
    engines.go_on.set()
    await served(signed_in, backend, "one side")
    await signed_in.get_by_label("Prompt").fill("Are you open?")
    await signed_in.get_by_role("button", name="Compare").click()

    await expect(signed_in.locator("article.base .text")).to_have_text("No.")
    await expect(signed_in.locator("article.aligned").get_by_role("alert")).to_contain_text("serving_unavailable")


async def test_stopping_keeps_what_was_said_so_far(signed_in: Page, backend: Backend, engines: Engines) -> None:
    engines.answers = {"base": ["No", "."], "aligned": ["Sorry", "."]}
    await served(signed_in, backend, "stopped")
    await signed_in.get_by_label("Prompt").fill("Are you open?")
    await signed_in.get_by_role("button", name="Compare").click()
    await expect(signed_in.locator("article.aligned .text")).to_have_text("Sorry")

    await signed_in.get_by_role("button", name="Stop", exact=True).click()

    await expect(signed_in.get_by_role("button", name="Compare")).to_be_visible()
    await expect(signed_in.locator("article.aligned .text")).to_have_text("Sorry")
    await expect(signed_in.get_by_role("alert")).to_have_count(0)
