"""Runs beside each other."""

import pytest
from playwright.async_api import Page, expect

from tests.dashboard.backend import Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_runs_that_were_chosen_are_compared_by_curve_option_and_outcome(
    signed_in: Page, backend: Backend
) -> None:
    for name, beta, losses in (("compared low", 0.1, (0.7, 0.5)), ("compared high", 0.5, (0.6, 0.2))):
        driver = await backend.running(name, losses=[{"type": "sigmoid", "beta": beta}])
        for step, loss in enumerate(losses, start=1):
            await driver.metrics(step, loss=loss)
    await signed_in.goto(f"{backend.url}/jobs?q=compared")
    await signed_in.get_by_label("Compare compared low").check()
    await signed_in.get_by_label("Compare compared high").check()
    await signed_in.get_by_role("button", name="Compare 2 jobs").click()

    await expect(signed_in.get_by_role("figure", name="loss")).to_have_accessible_name(
        "loss by optimizer step; latest: compared low 0.500, compared high 0.200"
    )
    differences = signed_in.get_by_role("region", name="Differences of the requests").get_by_role("row")
    await expect(differences).to_have_count(2)
    await expect(differences.last).to_have_text("losses.0.beta0.10.5")

    outcomes = signed_in.get_by_role("region", name="Outcomes")
    await outcomes.get_by_role("button", name="train.loss").click()
    await expect(outcomes.get_by_role("row").nth(1)).to_contain_text("compared high")
    await outcomes.get_by_role("button", name="train.loss").click()
    await expect(outcomes.get_by_role("row").nth(1)).to_contain_text("compared low")

    lines = signed_in.locator("svg.parallel polyline")
    await expect(lines).to_have_count(2)
    # over beta and loss: the low beta ends with the high loss
    await expect(lines.first).to_have_attribute("points", "80,240.0 230,46.0")
    await expect(lines.last).to_have_attribute("points", "80,46.0 230,240.0")

    await signed_in.get_by_label("Draw compared low").uncheck()
    await expect(signed_in.get_by_role("figure", name="loss")).to_have_accessible_name(
        "loss by optimizer step; latest: compared high 0.200"
    )
    await signed_in.get_by_role("button", name="Leave out compared low").click()
    await expect(signed_in.get_by_text("None: the requests are the same.")).to_be_visible()
