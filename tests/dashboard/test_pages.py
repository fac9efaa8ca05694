"""Every page, wide and narrow, light and dark: without barriers or errors, not wider than its window, and small.

Screenshots are kept in `.artifacts/screenshots`, for people; those of the documentation are taken from there.
"""

import asyncio
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, Route, expect

from service.jobs.states import DeploymentState
from service.keys.roles import Role
from service.keys.service import create_key
from service.spec import Storage
from tests.dashboard.backend import PROJECT, Attempt, Backend
from tests.dashboard.conftest import PATIENCE_S, watch
from tests.dashboard.test_evaluations import evaluated
from tests.evaluations.conftest import model_answers
from tests.evaluations.openai_server import answering
from tests.pairs_file import write_pairs_file

pytestmark = pytest.mark.asyncio(loop_scope="package")

SCREENSHOTS = Path(__file__).parents[2] / ".artifacts" / "screenshots"
BARS = {"critical", "serious"}
FIRST_PAGE_BYTES = 300_000
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


TEAM = "support-tone"  # a label of the jobs that are shown
STEPS = 60


def curve(beta: float) -> list[dict[str, Any]]:
    """Reports as of a run that learns, and levels off on rows that it does not see."""
    noise = random.Random(beta)
    reports = []
    for step in range(1, STEPS + 1):
        learned = (1 - math.exp(-step / 20)) / math.sqrt(beta)
        for split, share in (("train", 1.0), *([("held_out", 0.8)] if step % 15 == 0 else [])):
            margin = share * learned + noise.gauss(0, 0.05)
            values = {
                "loss": math.log1p(math.exp(-margin)),
                "rewards/margins": margin,
                "rewards/chosen": 0.3 * margin,
                "rewards/rejected": -0.7 * margin,
                "rewards/accuracies": min(1.0, 0.5 + 0.4 * margin * math.sqrt(beta)),
                "kl": 0.02 * step * share,
                "grad_norm": 2 / (1 + margin) + abs(noise.gauss(0, 0.1)),
            }
            reports.append({"kind": "metrics", "step": step, "split": split, "values": values})
    return reports


async def trained(backend: Backend, beta: float) -> Attempt:
    losses = [{"type": "sigmoid", "beta": beta}]
    driver = await backend.running(
        f"courteous replies, beta {beta}", losses=losses, metadata={"team": TEAM}, serve=True
    )
    await driver.report(*curve(beta))
    await backend.finished(driver, STEPS)
    return driver


async def sweep(backend: Backend) -> str:
    """The ID of one whose first job has been measured."""
    base = await backend.ready_to_post("shown")
    async with backend.client() as api:
        asked = {"name": "which beta", "base": base, "grid": {"losses.0.beta": [0.1, 0.3]}}
        made = (await api.post("/v1/sweeps", json=asked)).raise_for_status().json()
    first = await backend.started(made["jobs"][0]["job_id"])
    await first.report(*curve(0.1))
    return str(made["id"])


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def addresses(backend: Backend) -> dict[str, str]:
    """Of every page, by a name for its picture."""
    labelled = {"metadata": {"team": TEAM}}
    runs = [await trained(backend, beta) for beta in (0.1, 0.3)]
    write_pairs_file(Storage(backend.settings.storage_root).pairs(runs[0].job_id))
    await backend.deployment(runs[0].job_id, DeploymentState.READY)
    async with backend.client() as api:
        promoted = await api.post("/v1/models/courteous/promote", json={"job": runs[0].job_id})
        promoted.raise_for_status()
    with answering(model_answers) as server:
        evaluation = await evaluated(backend, server, "courteous against base")
    running = await backend.running("courteous replies, more rows", **labelled)
    await running.event("stage.started", "Training.", stage="train")
    await running.event(
        "health.alarm", "Far away.", stage="train", data={"name": "kl_beyond_budget", "evidence": {"kl": 1.5}}
    )
    await running.progress("train", 24, STEPS, "steps")
    await running.report(*curve(0.2)[:25])
    failed = await backend.running("brief replies", **labelled)
    await failed.fail(code="odd", message="It failed.", fault="user", stage="train", log_tail=["the last line"])
    await backend.queued("brief replies, smaller batches", **labelled)
    return {
        "jobs": f"/jobs?q={TEAM}",
        "job running": f"/jobs/{running.job_id}",
        "job succeeded": f"/jobs/{runs[0].job_id}",
        "pairs": f"/jobs/{runs[0].job_id}/pairs",
        "job failed": f"/jobs/{failed.job_id}",
        "queue": "/queue",
        "models": "/models",
        "new job": "/new",
        "side by side": f"/side-by-side?job={runs[0].job_id}",
        "side by side blind": "/side-by-side?mode=blind",
        "compare": "/compare?" + "&".join(f"job={run.job_id}" for run in runs),
        "compare nothing": "/compare",
        "sweep": f"/compare?sweep={await sweep(backend)}",
        "evaluations": "/evaluations",
        "evaluation new": f"/evaluations?new&job={runs[0].job_id}",
        "evaluation": f"/evaluations/{evaluation.id}",
        "settings": "/settings",
        "settings members": "/settings?tab=members",
        "settings keys": "/settings?tab=keys",
        "settings log": "/settings?tab=log",
        "settings projects": "/settings?tab=projects",
    }


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def operators_key(backend: Backend) -> str:
    """Sees everything that there is on any page."""
    async with backend.database.transaction() as session:
        _, key = await create_key(session, project_id=PROJECT, name="operator", role=Role.OPERATOR)
    return key


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
async def test_every_page_is_without_barriers_and_fits_its_window(
    browser: Browser, backend: Backend, addresses: dict[str, str], operators_key: str, width: int, scheme: str
) -> None:
    context = await browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = await context.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    errors = watch(page)
    found = {}
    await page.goto(backend.url)
    await expect(page.get_by_label("Key")).to_be_visible()
    found["sign in"] = await look(page, "sign in", width, scheme)
    await page.goto(f"{backend.url}/#key={operators_key}")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    reports = {f"report of {name}": f"/v1{addresses[name]}/report" for name in ("job succeeded", "evaluation")}
    for name, address in (addresses | reports).items():
        await page.goto(f"{backend.url}{address}")
        await expect(page.locator("h1")).to_be_attached()
        await expect(page.locator(".loading")).to_have_count(0)
        await page.wait_for_load_state("load")
        found[name] = await look(page, name, width, scheme)
    await context.close()
    assert {name: barriers for name, barriers in found.items() if barriers} == {}
    assert errors == []


async def look(page: Page, name: str, width: int, scheme: str) -> list[str]:
    """What stands in somebody's way on the page that is shown; a picture of it is kept."""
    results = (await Axe().run(page)).response
    barriers = [
        f"{found['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for found in results["violations"]
        if found["impact"] in BARS
        for node in found["nodes"]
    ]
    over = await page.evaluate(OVERFLOW)
    if over > 0:
        barriers.append(f"wider than the window by {over} pixels")
    await page.screenshot(path=SCREENSHOTS / f"{name.replace(' ', '-')}-{width}-{scheme}.png", full_page=True)
    return barriers


async def test_the_first_page_of_a_full_list_is_small(signed_in: Page, backend: Backend) -> None:
    await asyncio.gather(*(backend.queued(f"many {index}") for index in range(50)))
    page = await signed_in.context.new_page()
    sizes: dict[str, int] = {}

    async def measure(url: str, sizing: object) -> None:
        sizes[url] = len(await sizing.body())  # type: ignore[attr-defined]

    waiting = []
    page.on("response", lambda answer: waiting.append(asyncio.ensure_future(measure(answer.url, answer))))
    await page.goto(f"{backend.url}/jobs?q=many")
    await expect(page.get_by_role("row")).to_have_count(51)
    await asyncio.gather(*waiting)
    assert any("/v1/jobs" in url for url in sizes)
    assert not any("uPlot" in url for url in sizes)  # charts come with the pages that draw them
    assert sum(sizes.values()) < FIRST_PAGE_BYTES, sizes
    await page.close()


async def test_pages_are_reached_and_used_by_keyboard_alone(signed_in: Page, backend: Backend) -> None:
    await backend.queued("by keyboard")
    await signed_in.goto(f"{backend.url}/jobs?q=by+keyboard")
    await expect(signed_in.get_by_role("link", name="by keyboard")).to_be_visible()
    await signed_in.keyboard.press("Tab")
    await expect(signed_in.get_by_role("link", name="Skip to the page")).to_be_focused()
    await signed_in.keyboard.press("Enter")
    for _ in range(20):
        await signed_in.keyboard.press("Tab")
        if await signed_in.evaluate("document.activeElement.textContent") == "by keyboard":
            break
    await signed_in.keyboard.press("Enter")
    await expect(signed_in.get_by_role("heading", name="by keyboard")).to_be_visible()
    await expect(signed_in.locator("main")).to_be_focused()


API = re.compile("/v1/|/readyz")
GO = "to => { history.pushState(null, '', to); dispatchEvent(new PopStateEvent('popstate')); }"
# All of it opened, since what is closed has any size; without suggestions, which come when the API has listed them.
SIZES = """() => {
  document.querySelectorAll("main form details").forEach((one) => (one.open = true));
  return [...document.querySelectorAll("main form *")].filter((one) => one.checkVisibility()).map((one) => {
    const { width, height } = one.getBoundingClientRect();
    return `${one.tagName} ${Math.round(width)} ${Math.round(height)}`;
  });
}"""


async def test_a_page_looks_the_same_whatever_was_shown_before(
    signed_in: Page, backend: Backend, addresses: dict[str, str]
) -> None:
    page = signed_in
    plot = page.get_by_role("figure").locator("canvas")
    for name, kind in (
        ("job succeeded", "job"),
        ("pairs", "pairs"),
        ("side by side", "side-by-side"),
        ("sweep", "compare"),
    ):
        await page.evaluate(GO, addresses[name])
        await expect(page.locator(f".page-{kind} h1")).to_be_visible()
    await page.get_by_role("link", name="New job").click()
    await expect(plot).to_be_visible()
    after = await page.evaluate(SIZES)
    await page.reload()
    await expect(plot).to_be_visible()
    assert after == await page.evaluate(SIZES)


async def test_every_page_shows_that_it_waits_while_the_api_has_not_answered(
    page: Page, backend: Backend, addresses: dict[str, str], operators_key: str
) -> None:
    await page.goto(f"{backend.url}/#key={operators_key}")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    answered = asyncio.Event()

    async def late(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route(API, late)
    # from another page to the first: a list of jobs stays until the next one has come
    for address in (addresses["queue"], *addresses.values()):
        await page.evaluate(GO, address)
        await expect(page.locator(".loading").first).to_be_visible()
    answered.set()
    await expect(page.get_by_role("region", name="Projects")).to_be_visible()
    await expect(page.locator(".loading")).to_have_count(0)


@pytest.mark.expects_errors("ERR_FAILED")
async def test_every_page_says_that_the_api_is_away_and_recovers_by_itself(
    page: Page, backend: Backend, addresses: dict[str, str], operators_key: str
) -> None:
    await page.goto(f"{backend.url}/#key={operators_key}")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    away, said = page.get_by_text("No connection."), page.get_by_role("alert").get_by_text("The API cannot be reached")
    await page.route(API, lambda route: route.abort())
    for name, address in addresses.items():
        await page.evaluate(GO, address)
        # a job's page waits for its stream
        await expect(page.locator(".loading") if name.startswith("job ") else said.first).to_be_visible()
        await expect(away).to_be_visible()
    await page.unroute(API)
    await expect(page.get_by_role("region", name="Projects")).to_be_visible()
    await expect(said).to_have_count(0)
    await expect(away).to_have_count(0)


async def test_an_address_that_is_no_page_is_said_so_and_a_file_that_is_not_there_is_404(
    signed_in: Page, backend: Backend
) -> None:
    await signed_in.goto(f"{backend.url}/nowhere")
    await expect(signed_in.get_by_role("heading", name="There is no such page")).to_be_visible()
    for path, accept in (("/nowhere.js", "text/html"), ("/nowhere", "*/*"), ("/v1/nowhere", "text/html")):
        answer = await signed_in.context.request.get(f"{backend.url}{path}", headers={"Accept": accept})
        assert answer.status == 404, path
