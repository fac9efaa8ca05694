"""The page of one job while things happen to it."""

import re

import pytest
from playwright.async_api import Dialog, Page, expect

from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from tests.dashboard.backend import Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_curves_take_in_a_metric_that_is_posted_while_the_page_is_open(
    signed_in: Page, backend: Backend
) -> None:
    driver = await backend.running("curves")
    await signed_in.goto(f"{backend.url}/#/jobs/{driver.job_id}")
    await expect(signed_in.get_by_text("The curves start with the first optimizer step.")).to_be_visible()

    await driver.metrics(1, loss=0.693, rewards__margins=0.0)
    loss = signed_in.get_by_role("figure", name="Loss")
    await expect(loss).to_have_accessible_name("Loss by optimizer step; latest: loss 0.693")

    await driver.metrics(2, loss=0.512, rewards__margins=0.75)
    await expect(loss).to_have_accessible_name("Loss by optimizer step; latest: loss 0.512")
    margin = signed_in.get_by_role("figure", name="Reward margin")
    await expect(margin).to_have_accessible_name("Reward margin by optimizer step; latest: margin 0.750")
    await expect(margin.locator(".u-legend")).to_contain_text("0.750")
    drawn = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
    assert await margin.locator("canvas").evaluate(drawn)


async def test_a_step_that_is_repeated_after_a_resume_replaces_its_values(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("resumed")
    for step, loss in ((1, 0.7), (2, 0.6), (3, 0.5), (2, 0.25), (3, 0.125)):
        await driver.metrics(step, loss=loss)
    await signed_in.goto(f"{backend.url}/#/jobs/{driver.job_id}")

    await expect(signed_in.get_by_role("figure", name="Loss")).to_have_accessible_name(
        "Loss by optimizer step; latest: loss 0.125"
    )


async def test_stages_and_events_follow_the_attempt(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("stages")
    await signed_in.goto(f"{backend.url}/#/jobs/{driver.job_id}")

    stages = signed_in.locator(".stages li")

    await driver.progress("prepare", 40, 0, "rows")  # how many there are shows at the end
    await expect(stages.nth(0)).to_contain_text("40 rows")
    await expect(stages.nth(0)).not_to_contain_text("left")

    await driver.progress("prepare", 64, 64, "rows")
    await driver.event("stage.completed", "Prepared.", stage="prepare", data={"seconds": 3725})
    await driver.progress("reference", 0, 0, "pairs")
    await driver.progress("train", 1, 4, "steps")
    await driver.event("checkpoint.saved", "Checkpoint at step 1.", stage="train", data={"step": 1})

    await expect(stages.nth(0)).to_contain_text("64 of 64 rows")
    await expect(stages.nth(0)).to_contain_text("took 1 h 2 min")
    await expect(stages.nth(1)).to_contain_text("no pairs left to do")
    await expect(stages.nth(2)).to_contain_text("1 of 4 steps")
    await expect(signed_in.locator(".events li").first).to_contain_text("Checkpoint at step 1.")


async def test_every_event_is_shown_once_over_many_connections_and_a_killed_api(
    signed_in: Page, backend: Backend
) -> None:
    driver = await backend.running("restart")
    await signed_in.goto(f"{backend.url}/#/jobs/{driver.job_id}")
    await driver.event("checkpoint.saved", "before")
    await expect(signed_in.get_by_text("before", exact=True)).to_be_visible()

    backend.api.kill()
    await expect(signed_in.get_by_text("reconnecting…")).to_be_visible()
    backend.api.start()
    await driver.event("checkpoint.saved", "after")

    await expect(signed_in.get_by_text("after", exact=True)).to_be_visible()
    await expect(signed_in.get_by_text("reconnecting…")).not_to_be_visible()
    log = await signed_in.locator(".events li code").all_inner_texts()
    assert log == ["checkpoint.saved", "checkpoint.saved", "stage.started", "job.running", "job.starting", "job.queued"]


async def test_a_failure_says_what_happened_and_what_to_do_and_is_only_text(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("failing")
    markup = "<img src=x onerror=\"document.title='owned'\">"
    await driver.fail(
        code="model_too_large",
        message=f"The model {markup} does not fit: choose a smaller one.",
        fault="user",
        stage="train",
        log_tail=["step 1", f"RuntimeError: {markup}"],
    )
    await signed_in.goto(f"{backend.url}/#/jobs/{driver.job_id}")

    alert = signed_in.get_by_role("alert")
    await expect(alert).to_contain_text("Failed in stage train")
    await expect(alert).to_contain_text("model_too_large")
    await expect(alert).to_contain_text(f"The model {markup} does not fit: choose a smaller one.")
    await expect(alert).to_contain_text("correct it and submit the job again")
    await alert.get_by_text("Last lines of the log").click()
    await expect(alert.get_by_text(f"RuntimeError: {markup}")).to_be_visible()
    assert await signed_in.locator("main img").count() == 0


async def test_cancelling_asks_first_and_then_tells_the_api(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("unwanted")
    await signed_in.goto(f"{backend.url}/#/jobs/{driver.job_id}")
    asked: list[str] = []

    async def accept(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await dialog.accept()

    signed_in.on("dialog", accept)
    await signed_in.get_by_role("button", name="Cancel job").click()

    await expect(signed_in.locator(".title .state")).to_have_text("cancelling")
    await expect(signed_in.get_by_role("button", name="Cancel job")).not_to_be_visible()
    assert len(asked) == 1
    async with backend.database.reading() as session:
        assert (await JobRepository(session).get(driver.job_id)).state is JobState.CANCELLING


async def test_a_job_that_is_not_there_is_said_so(signed_in: Page, backend: Backend) -> None:
    await signed_in.goto(f"{backend.url}/#/jobs/job-000000000000000000000")

    await expect(signed_in.get_by_role("alert")).to_contain_text("not_found")


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_is_wider_than_the_window(signed_in: Page, backend: Backend, width: int, scheme: str) -> None:
    await signed_in.set_viewport_size({"width": width, "height": 900})
    await signed_in.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    driver = await backend.succeeded("a-name-without-a-single-space-" * 5)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    await expect(signed_in.get_by_role("link").filter(has_text="a-name-without").first).to_be_visible()
    assert await signed_in.evaluate(overflow) == 0

    await signed_in.goto(f"{backend.url}/#/jobs/{driver.job_id}")
    await expect(signed_in.get_by_role("figure", name="Loss")).to_be_visible()
    assert await signed_in.evaluate(overflow) == 0


async def test_a_job_that_waits_says_why(signed_in: Page, backend: Backend) -> None:
    job_id = await backend.queued("waits")
    await signed_in.goto(f"{backend.url}/#/jobs/{job_id}")
    # which of the two depends on what other tests have left on the cluster
    told = re.compile("the controller starts it|As many jobs as are allowed at one time")
    await expect(signed_in.get_by_role("status").filter(has_text=told)).to_be_visible()
