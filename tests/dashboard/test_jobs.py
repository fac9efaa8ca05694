"""The list of jobs."""

import asyncio
import re

import pytest
from playwright.async_api import Locator, Page, expect
from sqlalchemy import delete

from service.clock import utc_now
from service.db.tables import ClusterView, Job
from service.ids import new_id
from service.jobs.states import JobState
from service.keys.roles import Role
from service.keys.service import create_key
from service.projects.quota import Quota
from service.projects.service import create as create_project
from service.spec import AlignmentJob
from tests.dashboard.backend import PROJECT, Backend
from tests.dashboard.conftest import PATIENCE_S
from tests.service.conftest import add_job

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_an_empty_list_says_how_to_send_the_first_job(page: Page, backend: Backend) -> None:
    async with backend.database.transaction() as session:
        _, key = await create_key(session, project_id="newcomer", name="test")

    await page.goto(f"{backend.url}/#key={key}")

    await expect(page.get_by_text("No jobs yet.")).to_be_visible()
    await expect(page.get_by_text("plumbline submit job.yaml")).to_be_visible()


def row_of(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has_text=name)


async def test_jobs_come_and_move_while_the_list_is_open(signed_in: Page, backend: Backend) -> None:
    driver = await backend.running("list-live", losses=[{"type": "sigmoid", "beta": 0.3}])
    row = row_of(signed_in, "list-live")
    await expect(row).to_contain_text("sigmoid (beta 0.3)")
    await expect(row).to_contain_text("running")

    await driver.progress("train", 3, 12, "steps")
    await driver.metrics(1, loss=0.75)
    await driver.metrics(2, loss=0.25)
    await expect(row).to_contain_text("train: 3 of 12 steps")
    await expect(row.locator(".loss")).to_have_text("0.250")
    await expect(row.locator("polyline")).to_have_attribute("points", "2.0,2.0 94.0,22.0")

    await driver.fail(code="disk_full", message="No space is left.", fault="user", stage="train")
    await expect(row).to_contain_text("disk_full")


async def many(backend: Backend, num: int, project: str) -> str:
    """Jobs that have ended, of a project that is theirs alone. Returns a key of it."""
    asked = {"model": "/models/tiny", "data": {"train": "file-" + "0" * 21}}
    spec = AlignmentJob.model_validate(asked).model_dump(mode="json")
    like = {
        "project_id": project,
        "body_sha256": "0" * 64,
        "progress": {},
        "num_attempts": 1,
        "last_event": 0,
        "last_metric": 0,
        "loss_line": {"stride": 1, "points": [[step, 0.7 / step] for step in range(1, 33)]},
        **dict.fromkeys(("created_at", "started_at", "finished_at"), utc_now()),
    }
    async with backend.database.transaction() as session:
        for index, id in enumerate(sorted(new_id("job") for _ in range(num))):
            state = JobState.FAILED if index % 3 == 0 else JobState.SUCCEEDED
            session.add(Job(id=id, spec=spec | {"name": f"crowd no{index}"}, state=state, **like))
        _, key = await create_key(session, project_id=project, name="test")
    return key


async def scroll_to(page: Page, last: Locator) -> int:
    """Scrolls the list to its end, until its last row is drawn. Returns the most rows that it had at a time."""
    rows, most = page.locator("tbody tr"), 0
    async with asyncio.timeout(4 * PATIENCE_S):
        # the last rows make the page longer once more, and are drawn when they come into sight
        while "so far" in await page.locator(".list-end").inner_text() or not await last.is_visible():
            await page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            await page.wait_for_timeout(50)
            most = max(most, await rows.count())
    return most


async def test_thousands_of_jobs_are_scrolled_through_with_few_rows_at_a_time(page: Page, backend: Backend) -> None:
    key = await many(backend, 3000, "crowd")
    await page.goto(f"{backend.url}/#key={key}")
    newest, oldest = (page.get_by_role("link", name=f"crowd no{index}", exact=True) for index in (2999, 0))
    await expect(newest).to_be_visible()

    most = await scroll_to(page, oldest)
    await expect(page.locator(".list-end")).to_have_text("3,000 jobs")
    assert most < 400  # of 3,000: a page that is out of sight is one row

    await oldest.click()
    await expect(page.get_by_role("heading", name="crowd no0")).to_be_visible()
    await page.go_back()
    await expect(oldest).to_be_in_viewport()  # where it was left

    await page.keyboard.press("/")
    await page.keyboard.type("no1234")  # an ID has no such letters
    await expect(page.get_by_role("row")).to_have_count(2)
    await page.get_by_role("button", name="succeeded").click()
    await expect(page.get_by_role("link", name="crowd no1234")).to_be_visible()
    await page.get_by_role("button", name="failed").click()
    await expect(page.get_by_text("No job matches.")).to_be_visible()


# A browser that is busy tells an observer of several changes at once, from the earliest to the latest.
LATE_OBSERVERS = """
window.IntersectionObserver = class extends IntersectionObserver {
  constructor(callback, options) {
    const held = [];
    const tell = () => callback(held.splice(0), this);
    super((entries) => { if (held.push(...entries) === entries.length) setTimeout(tell, 200); }, options);
  }
};
"""


async def test_a_busy_browser_comes_to_the_end_of_the_list_too(page: Page, backend: Backend) -> None:
    key = await many(backend, 300, "late")
    await page.add_init_script(LATE_OBSERVERS)
    await page.goto(f"{backend.url}/#key={key}")

    await scroll_to(page, page.get_by_role("link", name="crowd no0", exact=True))

    await expect(page.locator(".list-end")).to_have_text("300 jobs")


# A browser that is busy ends the effects of what is no longer there some frames after it was taken away.
LATE_FRAMES = """
const next = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (run) => next(() => next(run));
"""


async def test_a_list_that_is_left_is_not_looked_at_again(page: Page, backend: Backend) -> None:
    key = await many(backend, 300, "left")
    await page.add_init_script(LATE_FRAMES)
    await page.goto(f"{backend.url}/#key={key}")
    for _ in range(10):
        await expect(page.get_by_role("link", name="crowd no299", exact=True)).to_be_visible()
        await page.get_by_role("link", name="Queue", exact=True).click()
        await expect(page.get_by_role("heading", name="Queue")).to_be_visible()
        await page.get_by_role("link", name="Jobs", exact=True).click()


async def test_rows_that_come_on_top_push_none_out_of_the_list(signed_in: Page, backend: Backend) -> None:
    names = [f"push-{index:02d}" for index in range(60)]
    for name in names:
        await backend.queued(name)
    await signed_in.goto(f"{backend.url}/jobs?q=push-")
    rows = signed_in.locator("tbody .what a")
    await signed_in.locator(".list-end").scroll_into_view_if_needed()
    await expect(signed_in.locator(".list-end")).to_have_text("60 jobs")
    await signed_in.evaluate("scrollTo(0, 0)")
    for index in range(60, 63):
        names.append(f"push-{index:02d}")
        await backend.queued(names[-1])
    await expect(rows.first).to_have_text("push-62")
    await signed_in.locator(".list-end").scroll_into_view_if_needed()
    await expect(signed_in.locator(".list-end")).to_have_text("63 jobs")
    await expect(rows).to_have_text(names[::-1])


async def test_an_operator_sees_the_jobs_of_all_projects_and_whose_they_are(page: Page, backend: Backend) -> None:
    await backend.queued("in my own project", metadata={"seen": "by-operators"})
    async with backend.database.transaction() as session:
        await add_job(session, project_id="elsewhere", search="by-operators elsewhere")
        await create_project(session, "elsewhere", Quota())
        _, key = await create_key(session, project_id=PROJECT, name="operator", role=Role.OPERATOR)
    await page.goto(f"{backend.url}/#key={key}")
    await page.get_by_role("searchbox").fill("by-operators")
    mine = row_of(page, "in my own project")
    await expect(mine.locator(".project")).to_have_text(PROJECT)
    await expect(page.get_by_role("row")).to_have_count(2)

    await page.get_by_role("combobox", name="Project").select_option("all projects")
    await expect(page.get_by_role("row")).to_have_count(3)
    other = row_of(page, "elsewhere")
    await expect(other.get_by_role("link")).to_have_count(0)  # its page is not theirs
    await expect(mine.get_by_role("link", name="in my own project")).to_be_visible()
    await page.get_by_role("combobox", name="Project").select_option("elsewhere")
    await expect(page.get_by_role("row")).to_have_count(2)
    await expect(other).to_be_visible()


async def test_search_and_states_are_in_the_address_and_survive_a_reload(signed_in: Page, backend: Backend) -> None:
    failing = await backend.running("needle in the haystack")
    await failing.fail(code="disk_full", message="No space is left.", fault="user", stage="train")
    await backend.running("another needle")

    await expect(signed_in.get_by_role("searchbox")).to_be_visible()
    await signed_in.keyboard.press("/")
    await signed_in.keyboard.type("needle")
    await expect(signed_in.get_by_role("row")).to_have_count(3)
    await signed_in.get_by_role("button", name="failed").click()
    await expect(signed_in.get_by_role("row")).to_have_count(2)

    await signed_in.reload()
    await expect(signed_in.get_by_role("searchbox")).to_have_value("needle")
    await expect(row_of(signed_in, "needle in the haystack")).to_be_visible()
    await expect(signed_in.get_by_role("row")).to_have_count(2)
    await signed_in.get_by_role("searchbox").fill("nothing is called this")
    await expect(signed_in.get_by_text("No job matches.")).to_be_visible()


async def test_the_queue_says_why_each_job_waits_and_who_holds_the_pools(signed_in: Page, backend: Backend) -> None:
    now = utc_now()
    node = {"label": "policy", "gpus": 1.0, "cpus": 8.0, "accelerator": "L4"}
    async with backend.database.transaction() as session:
        session.add(ClusterView(id=1, nodes=[node], observed_at=now, tried_at=now))
    try:
        holder = await backend.running("holds the GPU", losses=[{"type": "sft"}])
        await backend.queued("waits for the GPU", losses=[{"type": "sft"}], priority=9)
        await signed_in.get_by_role("link", name="Queue").click()

        pool = signed_in.get_by_role("article").filter(has_text="trains")
        await expect(pool).to_contain_text("1 × L4")
        await expect(pool.get_by_role("link", name="holds the GPU")).to_have_attribute("href", f"/jobs/{holder.job_id}")
        row = row_of(signed_in, "waits for the GPU")
        await expect(row).to_contain_text(re.compile("max_running_jobs|pool_full"))
        await expect(row).to_contain_text("9")
    finally:
        async with backend.database.transaction() as session:
            await session.execute(delete(ClusterView))
