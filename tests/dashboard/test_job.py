"""The page of one job while things happen to it."""

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Download, Locator, Page, expect

from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from tests.dashboard.backend import Backend
from tests.dashboard.conftest import ABORTED

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def content(download: Download) -> bytes:
    return await asyncio.to_thread(Path(await download.path()).read_bytes)


async def test_the_curves_take_in_a_metric_that_is_posted_while_the_page_is_open(
    signed_in: Page, backend: Backend
) -> None:
    driver = await backend.running("curves")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
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
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

    await expect(signed_in.get_by_role("figure", name="Loss")).to_have_accessible_name(
        "Loss by optimizer step; latest: loss 0.125"
    )


async def test_the_curves_go_on_with_the_attempt_of_a_retry(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("to retry", **await backend.ready_to_post("to-retry"))
    await driver.metrics(1, loss=0.7)
    await driver.fail(code="odd", message="It failed.", fault="user", stage="train")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    await expect(signed_in.locator(".head .state")).to_have_text("failed")
    await signed_in.get_by_role("button", name="Retry").click()
    await expect(signed_in.locator(".head .state")).to_have_text("queued")

    again = await backend.started(driver.job_id)
    await again.metrics(1, loss=0.7)
    await again.metrics(2, loss=0.25)
    await expect(signed_in.get_by_role("figure", name="Loss")).to_have_accessible_name(
        "Loss by optimizer step; latest: loss 0.250"
    )


async def test_stages_and_events_follow_the_attempt(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("stages")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

    stages = signed_in.locator(".timeline li")

    await driver.progress("prepare", 40, 0, "rows")  # how many there are shows at the end
    await expect(stages.nth(1)).to_contain_text("40 rows")
    await expect(stages.nth(1)).not_to_contain_text("left")

    await driver.progress("prepare", 64, 64, "rows")
    await driver.event("stage.completed", "Prepared.", stage="prepare", data={"seconds": 3725})
    await driver.progress("reference", 0, 0, "pairs")
    await driver.progress("train", 1, 4, "steps")
    await driver.event("checkpoint.saved", "Checkpoint at step 1.", stage="train", data={"step": 1})

    await expect(stages.nth(1)).to_contain_text("64 of 64 rows")
    await expect(stages.nth(1)).to_contain_text("took 1 h 2 min")
    await expect(stages.nth(2)).to_contain_text("no pairs left to do")
    await expect(stages.nth(3)).to_contain_text("1 of 4 steps")
    await expect(signed_in.locator(".events li").first).to_contain_text("Checkpoint at step 1.")


@pytest.mark.expects_errors("ERR_")
async def test_every_event_is_shown_once_over_many_connections_and_a_killed_api(
    signed_in: Page, backend: Backend
) -> None:
    driver = await backend.running("restart")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
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


@pytest.mark.expects_errors("ERR_")
async def test_a_page_that_was_offline_says_so_and_has_missed_nothing_after(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("offline")
    await driver.metrics(1, loss=0.7)
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    figure = signed_in.get_by_role("figure", name="Loss")
    await expect(figure).to_be_visible()
    note = signed_in.get_by_text("No connection.")

    # A stream that is open stays so, until it is asked for anew.
    async with signed_in.expect_event(
        "requestfailed", lambda asked: asked.url.endswith("/metrics") and ABORTED not in (asked.failure or "")
    ):
        await signed_in.context.set_offline(True)
    await expect(note).to_be_visible()
    for step, loss in ((2, 0.6), (3, 0.5)):
        await driver.metrics(step, loss=loss)
    await expect(figure).to_have_accessible_name("Loss by optimizer step; latest: loss 0.700")

    await signed_in.context.set_offline(False)
    await expect(note).to_have_count(0)
    await driver.metrics(4, loss=0.4)
    await expect(figure).to_have_accessible_name("Loss by optimizer step; latest: loss 0.400")
    async with signed_in.expect_download() as csv:
        await signed_in.get_by_role("button", name="CSV").click()
    rows = (await content(await csv.value)).decode().split("\r\n")
    assert rows[1:] == ["train,1,0.7", "train,2,0.6", "train,3,0.5", "train,4,0.4"]


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
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

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
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    dialog = signed_in.get_by_role("dialog", name="Cancel this job?")
    await signed_in.get_by_role("button", name="Cancel job").click()
    await expect(dialog).to_be_visible()
    await signed_in.keyboard.press("Escape")
    await expect(dialog).not_to_be_visible()
    await expect(signed_in.locator(".head .state")).to_have_text("running")

    await signed_in.get_by_role("button", name="Cancel job").click()
    await dialog.get_by_role("button", name="Cancel the job").click()

    await expect(signed_in.locator(".head .state")).to_have_text("cancelling")
    await expect(signed_in.get_by_role("button", name="Cancel job")).not_to_be_visible()
    async with backend.database.reading() as session:
        assert (await JobRepository(session).get(driver.job_id)).state is JobState.CANCELLING


async def test_a_job_is_paused_resumed_and_an_ended_one_deleted(signed_in: Page, backend: Backend) -> None:
    job_id = await backend.queued("to pause")
    await signed_in.goto(f"{backend.url}/jobs/{job_id}")
    state = signed_in.locator(".head .state")
    await signed_in.get_by_role("button", name="Pause").click()
    await expect(state).to_have_text("paused")
    await signed_in.get_by_role("button", name="Resume").click()
    await expect(state).to_have_text("queued")

    await signed_in.get_by_role("button", name="Cancel job").click()
    await signed_in.get_by_role("button", name="Cancel the job").click()
    await expect(state).to_have_text("cancelled")
    await signed_in.get_by_role("button", name="Delete").click()
    await signed_in.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    await expect(signed_in.get_by_role("heading", name="Jobs")).to_be_visible()
    async with backend.database.reading() as session:
        assert (await JobRepository(session).get(job_id)).deleted_at is not None


async def test_a_clone_opens_the_form_with_what_the_job_was(signed_in: Page, backend: Backend) -> None:
    driver = await backend.succeeded("to clone")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    await signed_in.get_by_role("link", name="Clone").click()
    await expect(signed_in.get_by_role("heading", level=1)).to_have_text("New job")
    await expect(signed_in).to_have_url(f"{backend.url}/new?clone={driver.job_id}")


async def test_stages_that_overlap_are_drawn_side_by_side_in_time(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("overlapping")
    await driver.event("stage.completed", "Prepared.", stage="prepare", data={"seconds": 1})
    await driver.event("stage.started", "Scoring.", stage="reference")
    await driver.event("stage.started", "Training.", stage="train")
    await driver.event("stage.completed", "Scored.", stage="reference", data={"seconds": 9})
    await driver.progress("train", 1, 4, "steps")
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

    rows = signed_in.locator(".timeline li")
    bars = rows.locator(".span.reference, .span.train")
    await expect(bars).to_have_count(2)
    # Both at one moment: the axis is drawn anew every second, and what is on it moves to the left.
    reference, train = await bars.evaluate_all("bars => bars.map((bar) => bar.getBoundingClientRect().toJSON())")
    assert reference["left"] < train["left"] < reference["right"]
    await expect(rows.filter(has_text="train")).to_contain_text("so far")


async def test_an_alarm_shows_the_figures_that_it_rests_on(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("alarming")
    await driver.event(
        "health.alarm",
        "The policy is about 0.4 nats a token from its reference.",
        stage="train",
        data={"name": "kl_beyond_budget", "step": 40, "evidence": {"kl": 0.4}, "advice": "Raise beta."},
    )
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

    alarm = signed_in.get_by_role("region", name="Health alarm")
    for told in ("kl_beyond_budget", "step 40", "0.400", "Raise beta."):
        await expect(alarm).to_contain_text(told)


async def test_curves_are_smoothed_drawn_beside_the_held_out_ones_and_taken_along_as_files(
    signed_in: Page, backend: Backend
) -> None:
    driver = await backend.running("files")
    for step, loss in ((1, 1.0), (2, 0.5), (3, 0.75)):
        await driver.metrics(step, loss=loss, rewards__chosen=-loss)
    await driver.metrics(3, split="held_out", loss=0.875)
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

    figure = signed_in.get_by_role("figure", name="Loss")
    await expect(figure).to_have_accessible_name("Loss by optimizer step; latest: loss 0.750, loss, held out 0.875")
    async with signed_in.expect_download() as csv:
        await signed_in.get_by_role("button", name="CSV").click()
    rows = (await content(await csv.value)).decode().split("\r\n")
    assert rows[0] == "split,step,loss,rewards/chosen"
    assert rows[1:] == ["train,1,1,-1", "train,2,0.5,-0.5", "train,3,0.75,-0.75", "held_out,3,0.875,"]
    async with signed_in.expect_download() as png:
        await signed_in.get_by_role("button", name="Loss as PNG").click()
    assert (await content(await png.value)).startswith(b"\x89PNG")

    await signed_in.get_by_label("log scale").check()  # rewards below 0 have no place on it
    await signed_in.get_by_label("Smoothing").fill("0.5")
    # with Adam's correction for the start: (0.25 * 0.5 * 1 + 0.5 * 0.5 * 0.5 + 0.5 * 0.75) / (1 - 0.5^3)
    smoothed = (0.125 * 1 + 0.25 * 0.5 + 0.5 * 0.75) / 0.875
    await expect(figure).to_have_accessible_name(re.compile(f"latest: loss {smoothed:.3f}"))


async def test_a_chart_is_read_and_zoomed_by_keyboard(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("by key")
    for step in range(1, 9):
        await driver.metrics(step, loss=1 / step)
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    figure = signed_in.get_by_role("figure", name="Loss")
    await expect(figure).to_have_accessible_name(re.compile("latest: loss 0.125"))
    legend, drawn = figure.locator(".u-legend"), figure.locator("canvas")
    await figure.focus()
    for key, step, loss in (("ArrowLeft", 8, "0.125"), ("ArrowLeft", 7, "0.143"), ("ArrowRight", 8, "0.125")):
        await signed_in.keyboard.press(key)
        await expect(legend).to_contain_text(f"step{step}")
        await expect(legend).to_contain_text(loss)
    whole = await picture(drawn)
    await signed_in.keyboard.press("+")  # from 4.5 to 8
    assert await picture(drawn) != whole
    await signed_in.keyboard.press("+")  # from 6.25 to 8
    for _ in range(8):
        await signed_in.keyboard.press("ArrowLeft")
    await expect(legend).to_contain_text("step7")  # no further than what is in view
    await signed_in.keyboard.press("-")
    await signed_in.keyboard.press("-")
    assert await picture(drawn) == whole
    for _ in range(3):
        await signed_in.keyboard.press("ArrowLeft")
    await expect(legend).to_contain_text("step4")
    for _ in range(3):  # the point under the cursor stays there
        await signed_in.keyboard.press("+")
        await picture(drawn)
        await expect(legend).to_contain_text("step4")
    await signed_in.keyboard.press("Escape")
    assert await picture(drawn) == whole


async def picture(canvas: Locator) -> str:
    """What is drawn once the chart has nothing left to draw."""
    frame = "canvas => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(canvas.toDataURL()))))"
    drawn: str = await canvas.evaluate(frame)
    return drawn


async def test_a_long_run_is_read_in_few_points_and_goes_on_from_there(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("long")
    reports = [
        {"kind": "metrics", "step": step, "split": "train", "values": {"loss": 1 / step}} for step in range(1, 3001)
    ]
    for at in range(0, len(reports), 500):
        await driver.report(*reports[at : at + 500])
    frames = []
    signed_in.on("response", lambda answer: frames.append(answer.request) if "/metrics" in answer.url else None)
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")

    figure = signed_in.get_by_role("figure", name="Loss")
    await expect(figure).to_be_visible()
    await driver.metrics(3001, loss=0.125)
    await expect(figure).to_have_accessible_name("Loss by optimizer step; latest: loss 0.125")
    streams = [asked for asked in frames if asked.headers.get("accept") == "text/event-stream"]
    assert streams
    assert int(streams[0].headers["last-event-id"]) == 3000


async def test_a_list_is_asked_for_once_and_again_when_something_is_new(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("asked once")
    asked: list[str] = []
    signed_in.on("request", lambda request: request.url.endswith("/checkpoints") and asked.append(request.url))
    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    await expect(signed_in.get_by_text("Reading the rows.")).to_be_visible()
    await signed_in.wait_for_timeout(500)  # time to do wrong
    assert len(asked) == 1

    async with signed_in.expect_request("**/checkpoints"):
        await driver.event("checkpoint.saved", "at step 4", data={"step": 4})


@pytest.mark.expects_errors("404")
async def test_a_job_that_is_not_there_is_said_so(signed_in: Page, backend: Backend) -> None:
    await signed_in.goto(f"{backend.url}/jobs/job-000000000000000000000")

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

    await signed_in.goto(f"{backend.url}/jobs/{driver.job_id}")
    await expect(signed_in.get_by_role("figure", name="Loss")).to_be_visible()
    assert await signed_in.evaluate(overflow) == 0


async def test_a_job_that_waits_says_why(signed_in: Page, backend: Backend) -> None:
    job_id = await backend.queued("waits")
    await signed_in.goto(f"{backend.url}/jobs/{job_id}")
    # which of the two depends on what other tests have left on the cluster
    told = re.compile("the controller starts it|As many jobs as are allowed at one time")
    await expect(signed_in.get_by_role("status").filter(has_text=told)).to_be_visible()
