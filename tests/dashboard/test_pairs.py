"""The page of a job's pairs: what training moved, flags by keyboard, the corrected set and the job that differs."""

import json
import re

import httpx
import pytest
from playwright.async_api import Page, expect

from service.jobs.repository import JobRepository
from service.keys.roles import Role
from service.keys.service import create_key
from service.spec import Storage
from tests.dashboard.backend import PROJECT, Backend
from tests.pairs_file import PAIRS, write_pairs_file
from tests.service.conftest import make_model

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def measured(backend: Backend, name: str) -> str:
    """A job that has succeeded on an uploaded file, with the file of its pairs."""
    rows = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in PAIRS]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    headers = {"Authorization": f"Bearer {backend.key}"}
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as http:
        file = (await http.post("/v1/files", files={"file": ("pairs.jsonl", content.encode())})).json()
    driver = await backend.succeeded(name, data={"train": file["id"]})
    model = make_model(backend.settings.storage_root / "models" / name)
    async with backend.database.transaction() as session:
        job = await JobRepository(session).get(driver.job_id)
        job.spec = job.spec | {"model": job.spec["model"] | {"source": str(model)}}
    write_pairs_file(Storage(backend.settings.storage_root).pairs(driver.job_id))
    return driver.job_id


async def test_the_pairs_are_listed_most_wrong_first_and_one_is_shown_token_by_token(
    signed_in: Page, backend: Backend
) -> None:
    job_id = await measured(backend, "moved")
    await signed_in.goto(f"{backend.url}/jobs/{job_id}/pairs")
    rows = signed_in.locator(".pair-list button")
    await expect(rows).to_have_count(len(PAIRS))
    await expect(signed_in.get_by_text("All 4 training pairs.")).to_be_visible()
    figure = signed_in.get_by_role("figure", name="Margin before and after training")
    await expect(figure).to_have_accessible_name(re.compile("2 of 4 rose"))

    await signed_in.get_by_label("Order").select_option("row")
    await expect(rows.first).to_contain_text("row 1")
    await rows.nth(0).click()
    await expect(signed_in.get_by_role("heading", name="Row 1")).to_be_visible()
    tokens = signed_in.get_by_role("group", name="Tokens of the chosen answer")
    await expect(tokens).to_have_text(PAIRS[0][1])
    assert await tokens.locator("[class*='heat-u']").count() > 0
    assert await tokens.locator("[class*='heat-d']").count() == 0  # row 1 is one whose chosen answer became likelier
    await tokens.focus()
    await signed_in.keyboard.press("ArrowRight")
    await expect(signed_in.locator(".token-told").first).to_have_text(
        re.compile(r'Token 2 of \d+, ".+": log-prob −\d.* before, −\d.* after, \+0\.')
    )
    await expect(signed_in).to_have_url(re.compile(r"sort=row&row=1"))


async def test_pairs_are_flagged_by_keyboard_and_the_job_that_differs_begins(signed_in: Page, backend: Backend) -> None:
    job_id = await measured(backend, "flags")
    await signed_in.goto(f"{backend.url}/jobs/{job_id}/pairs?sort=row")
    rows = signed_in.locator(".pair-list button")
    await expect(signed_in.get_by_role("button", name="Export corrected set")).to_be_disabled()

    await rows.nth(0).focus()
    await signed_in.keyboard.press("ArrowDown")
    await expect(signed_in.get_by_role("heading", name="Row 2")).to_be_visible()
    await signed_in.keyboard.press("s")
    await expect(rows.nth(1)).to_contain_text("answers swapped")
    await signed_in.keyboard.press("j")
    await expect(signed_in.get_by_role("heading", name="Row 3")).to_be_visible()
    await signed_in.keyboard.press("d")
    await expect(rows.nth(2)).to_contain_text("to be dropped")
    await signed_in.keyboard.press("u")
    await expect(rows.nth(2)).not_to_contain_text("to be dropped")
    note = signed_in.get_by_label("Note for others")
    await note.fill("sd")  # letters of a note are no commands
    await signed_in.get_by_role("button", name="Drop").click()
    await expect(rows.nth(2)).to_contain_text("to be dropped")  # before the counts, which were the same with "d"
    await expect(signed_in.get_by_text("Flagged: 1 to be swapped, 1 to be dropped.")).to_be_visible()

    await signed_in.get_by_label("only flagged").check()
    await expect(rows).to_have_count(2)
    await signed_in.get_by_role("button", name="Export corrected set").click()
    await expect(signed_in.locator(".exported")).to_contain_text("1 rows swapped, 1 dropped")
    file_id = await signed_in.locator(".exported code").first.inner_text()
    await signed_in.get_by_role("button", name="Start the job that differs").click()
    await expect(signed_in).to_have_url(re.compile(r"/jobs/job-[0-9a-f]{21}$"))
    async with backend.database.reading() as session:
        made = await JobRepository(session).get(signed_in.url.rpartition("/")[2])
    assert (made.cloned_from, made.spec["data"]["train"]) == (job_id, file_id)


async def test_keys_that_come_faster_than_the_page_is_drawn_are_for_the_pairs_they_were_meant_for(
    signed_in: Page, backend: Backend
) -> None:
    job_id = await measured(backend, "fast")
    await signed_in.goto(f"{backend.url}/jobs/{job_id}/pairs?sort=row")
    rows = signed_in.locator(".pair-list button")
    await rows.nth(0).focus()
    pressed = "keys => keys.forEach(key => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', KEY)))"
    await signed_in.evaluate(pressed.replace("KEY", "{key, bubbles: true}"), list("sjdjdsjd"))
    await expect(signed_in.get_by_text("Flagged: 2 to be swapped, 2 to be dropped.")).to_be_visible()
    for index, flag in enumerate(("swapped", "dropped", "swapped", "dropped")):
        await expect(rows.nth(index)).to_contain_text(flag)


async def test_rows_that_are_markup_are_shown_as_text(signed_in: Page, backend: Backend) -> None:
    job_id = await measured(backend, "markup")
    await signed_in.goto(f"{backend.url}/jobs/{job_id}/pairs?sort=row&row=3")
    await expect(signed_in.locator(".pair-prompt")).to_have_text(PAIRS[2][0])
    await expect(signed_in.get_by_role("group", name="Tokens of the chosen answer")).to_have_text(PAIRS[2][1])
    assert await signed_in.locator("main img, main script, main b").count() == 0


@pytest.mark.expects_errors("404")
async def test_a_job_without_a_measure_says_why(signed_in: Page, backend: Backend) -> None:
    job_id = await backend.queued("none", losses=[{"type": "sft"}])
    await signed_in.goto(f"{backend.url}/jobs/{job_id}/pairs")
    await expect(signed_in.get_by_role("alert")).to_contain_text("pairs_missing")
    await expect(signed_in.get_by_role("alert")).to_contain_text("learn from answers, not from pairs")


async def test_on_a_narrow_window_nothing_is_wider_than_it(signed_in: Page, backend: Backend) -> None:
    job_id = await measured(backend, "narrow")
    await signed_in.set_viewport_size({"width": 390, "height": 844})
    await signed_in.goto(f"{backend.url}/jobs/{job_id}/pairs")
    await expect(signed_in.locator(".tokens").first).to_be_visible()
    assert await signed_in.evaluate("document.documentElement.scrollWidth") <= 390


async def test_a_viewer_reads_the_pairs_and_flags_none(page: Page, backend: Backend) -> None:
    job_id = await measured(backend, "viewed")
    async with backend.database.transaction() as session:
        _, key = await create_key(session, project_id=PROJECT, name="looks", role=Role.VIEWER)
    await page.goto(f"{backend.url}/#key={key}")
    await expect(page.get_by_text("looks, viewer")).to_be_visible()
    await page.goto(f"{backend.url}/jobs/{job_id}/pairs?sort=row")
    await expect(page.get_by_role("heading", name="Row 1")).to_be_visible()
    await page.locator(".pair-list button").first.focus()
    await page.keyboard.press("d")  # says nothing, and is not sent: a refusal would fail the test
    await expect(page.get_by_text("members flag them")).to_be_visible()
    await expect(page.get_by_role("button", name="Drop")).to_have_count(0)
