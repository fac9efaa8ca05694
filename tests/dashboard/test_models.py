"""Checkpoints made into models, models promoted to names, and the way back."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from service.evaluations import gates
from service.evaluations.gate import Rule
from service.jobs.states import DeploymentState
from service.keys.roles import Role
from service.keys.service import create_key
from service.spec import Storage
from tests.dashboard.backend import PROJECT, Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")


def write_checkpoint(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "run.json").write_text("12345")


async def test_a_checkpoint_is_made_into_a_model_while_its_job_runs(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("with a checkpoint")
    await driver.metrics(50, split="held_out", loss=0.625)
    path = Storage(backend.settings.storage_root).checkpoints(driver.job_id) / "step-00000050"
    await asyncio.to_thread(write_checkpoint, path)
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

    row = signed_in.get_by_role("region", name="Checkpoints").get_by_role("row").last
    await expect(row).to_contain_text("0.625")
    await row.get_by_role("button", name="Make a model of step 50").click()

    await expect(row.locator(".state")).to_have_text("requested")
    await expect(row.get_by_role("button")).to_have_count(0)


async def test_a_model_is_promoted_to_a_name_and_the_name_rolled_back(signed_in: Page, backend: Backend) -> None:
    jobs = []
    for index in (1, 2):
        driver = await backend.succeeded(f"promoted {index}", serve=True)
        await backend.deployment(driver.job_id, DeploymentState.READY)
        jobs.append(driver.job_id)
        await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
        await signed_in.get_by_role("button", name="Promote the model").click()
        await signed_in.get_by_role("dialog").get_by_label("Name").fill("support")
        await signed_in.get_by_role("button", name="Promote it").click()
        await expect(signed_in.get_by_role("dialog")).to_have_count(0)

    await signed_in.get_by_role("link", name="Models", exact=True).click()
    named = signed_in.get_by_role("row").filter(has=signed_in.get_by_text("support", exact=True))
    await expect(named).to_contain_text("promoted 2")
    await named.get_by_role("button", name="History of support").click()
    dialog = signed_in.get_by_role("dialog", name="What support means")
    history = dialog.get_by_role("row")
    await expect(history).to_have_count(3)
    await expect(history.nth(1)).to_contain_text(f"job:{jobs[1]}current")
    await expect(history.nth(2)).to_contain_text(f"job:{jobs[0]}past")

    await dialog.get_by_role("button", name="Roll back").click()
    await expect(history).to_have_count(4)
    await expect(history.nth(1)).to_contain_text(f"job:{jobs[0]}current")
    await signed_in.keyboard.press("Escape")
    await expect(named).to_contain_text("promoted 1")


async def admins_page(page: Page, backend: Backend) -> Page:
    async with backend.database.transaction() as session:
        _, key = await create_key(session, project_id=PROJECT, name="admin", role=Role.ADMIN)
    await page.goto(f"{backend.url}/#key={key}")
    await page.get_by_role("link", name="Models", exact=True).click()
    return page


@pytest.mark.expects_errors("409")
async def test_a_gate_keeps_a_model_from_its_name_until_an_evaluation_shows_enough(
    page: Page, backend: Backend
) -> None:
    page = await admins_page(page, backend)
    section = page.get_by_role("region", name="Gates", exact=True)
    await section.get_by_role("button", name="New gate").click()
    await page.get_by_label("Name that models are promoted to").fill("guarded")
    await page.get_by_label("Win rate, lower bound above").fill("0.5")
    await page.get_by_label("Outcomes, at least").fill("20")
    await page.get_by_label("No preference of the judge for a place").check()
    await page.get_by_label("Judge that counts").fill("people")
    await page.get_by_role("button", name="Set the gate").click()
    row = section.get_by_role("row").filter(has_text="guarded")
    await expect(row).to_contain_text("win rate surely above 0.5, 20 outcomes, no position bias, by people")

    driver = await backend.succeeded("gated", serve=True)
    await backend.deployment(driver.job_id, DeploymentState.READY)
    await page.goto(f"{backend.url}/jobs/{driver.job_id}")
    await page.get_by_role("button", name="Promote the model").click()
    await page.get_by_role("dialog").get_by_label("Name").fill("guarded")
    await page.get_by_role("button", name="Promote it").click()
    await expect(page.get_by_role("dialog")).to_contain_text("evaluation")
    await page.keyboard.press("Escape")

    await page.get_by_role("link", name="Models", exact=True).click()
    await section.get_by_role("button", name="Change the gate of guarded").click()
    await expect(page.get_by_label("Outcomes, at least")).to_have_value("20")
    await page.get_by_label("Outcomes, at least").fill("")
    await page.get_by_role("button", name="Set the gate").click()
    await expect(row).to_contain_text("above 0.5, no position bias")
    await section.get_by_role("button", name="Remove the gate of guarded").click()
    await expect(row).to_have_count(0)


async def test_a_member_sees_gates_and_changes_none(signed_in: Page, backend: Backend) -> None:
    async with backend.database.transaction() as session:
        await gates.put(session, PROJECT, "careful", Rule(min_votes=3))
    await signed_in.get_by_role("link", name="Models", exact=True).click()
    section = signed_in.get_by_role("region", name="Gates", exact=True)
    await expect(section.get_by_role("row").filter(has_text="careful")).to_contain_text("3 outcomes")
    await expect(section.get_by_role("button")).to_have_count(0)
