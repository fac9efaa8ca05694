"""Several models side by side: under their names, and blind with votes."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from service.controller.context import make_controller
from service.controller.evaluate import Evaluate
from service.jobs.states import DeploymentState
from tests.dashboard.backend import Backend
from tests.dashboard.serve import Engines
from tests.dashboard.test_markup import MARKUP
from tests.dashboard.test_pages import look

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(loop_scope="package")
async def evaluating(backend: Backend) -> AsyncIterator[None]:
    """The controller's part in evaluations, on the engines of these tests."""
    async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as cluster, Evaluate() as evaluate:
        controller = make_controller(backend.settings, backend.database, cluster)

        async def work() -> None:
            while True:
                await evaluate.reconcile(controller)
                await asyncio.sleep(0.1)

        working = asyncio.create_task(work())
        yield
        working.cancel()
        await asyncio.wait([working])


async def served(page: Page, backend: Backend, name: str) -> str:
    """A job whose chat models are deployed, as far as the database knows; the page is open on them."""
    driver = await backend.succeeded(name, serve=True)
    (backend.settings.storage_root / "models" / driver.job_id / "chat_template.jinja").write_text("{{ messages }}")
    await backend.deployment(driver.job_id, DeploymentState.READY)
    await page.goto(f"{backend.url}/side-by-side?job={driver.job_id}")
    await expect(page.get_by_role("combobox", name="Model 2")).to_have_value(f"job:{driver.job_id}")
    return driver.job_id


def texts(page: Page) -> Any:
    return page.locator("article.answer .text")


async def ask(page: Page, prompt: str) -> None:
    ready = page.get_by_role("button", name=re.compile("^(Ask|Start voting)$"))
    await expect(ready).to_be_visible()  # and not Stop, while it keeps what was said before
    await page.locator("textarea").fill(prompt)
    await page.keyboard.press("Control+Enter")


async def test_models_answer_as_the_words_come_and_are_asked_on(
    signed_in: Page, backend: Backend, engines: Engines
) -> None:
    page = signed_in
    engines.answers = {"base": ["No", "."], "aligned": ["Sorry", ", no."]}
    await served(page, backend, "streamed")
    await page.get_by_label("Seed").fill("7")
    await ask(page, "Are you open?")
    await expect(texts(page)).to_have_text(["No", "Sorry"])
    engines.go_on.set()
    await expect(texts(page)).to_have_text(["No.", "Sorry, no."])
    await expect(page.get_by_text("2 tokens, complete")).to_have_count(2)

    await ask(page, "And tomorrow?")
    await expect(texts(page)).to_have_count(4)
    await expect(page.get_by_text("2 tokens, complete")).to_have_count(4)
    conversations = {asked["model"]: asked["messages"] for asked in engines.asked[-2:]}
    for model, said in (("base", "No."), ("aligned", "Sorry, no.")):
        assert [message["content"] for message in conversations[model]] == ["Are you open?", said, "And tomorrow?"]
    assert {asked["seed"] for asked in engines.asked} == {7}


async def test_what_was_asked_is_there_in_another_browser(signed_in: Page, backend: Backend, engines: Engines) -> None:
    page = signed_in
    engines.answers = {"base": ["No."], "aligned": ["Sorry."]}
    engines.go_on.set()
    await served(page, backend, "kept")
    await page.get_by_label("Several prompts").check()
    await ask(page, "One?\n\nTwo?\nWith a second line.")
    await expect(texts(page)).to_have_text(["No.", "Sorry."] * 2)
    assert [asked["messages"][0]["content"] for asked in engines.asked[::2]] == ["One?", "Two?\nWith a second line."]

    # This one: of an earlier test's conversation the history may say the same.
    asked = page.get_by_role("region", name="History").get_by_role("listitem").filter(has_text="One?")
    await expect(asked).to_contain_text("2 questions")
    await page.evaluate("localStorage.clear()")
    await page.reload()
    await page.goto(f"{backend.url}/#key={backend.key}")
    await expect(page.get_by_role("heading", name="Jobs", level=1)).to_be_visible()
    await page.goto(f"{backend.url}/side-by-side")
    await page.get_by_role("region", name="History").get_by_role("button", name="One?").click()
    await expect(texts(page)).to_have_text(["No.", "Sorry."] * 2)
    await asked.get_by_role("button", name="Forget this one").click()
    await expect(asked).to_have_count(0)


@pytest.mark.expects_errors("ERR_FAILED", "409")
async def test_a_conversation_whose_keeping_was_not_answered_is_kept_once(
    signed_in: Page, backend: Backend, engines: Engines
) -> None:
    page = signed_in
    engines.answers = {"base": ["No."], "aligned": ["Sorry."]}
    engines.go_on.set()
    await served(page, backend, "kept once")

    async def lose_the_answer(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/v1/conversations", lose_the_answer, times=1)
    await ask(page, "Is it kept?")
    await expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    await ask(page, "And now?")
    asked = page.get_by_role("region", name="History").get_by_role("listitem").filter(has_text="Is it kept?")
    await expect(asked).to_contain_text("2 questions")
    await expect(asked).to_have_count(1)


@pytest.mark.expects_errors("503")
async def test_a_model_that_fails_leaves_the_others_readable(
    signed_in: Page, backend: Backend, engines: Engines
) -> None:
    page = signed_in
    engines.answers = {"base": ["No."]}
    engines.go_on.set()
    await served(page, backend, "one fails")
    await ask(page, "Are you open?")
    await expect(texts(page).first).to_have_text("No.")
    await expect(page.get_by_role("alert")).to_contain_text("serving_unavailable")


@pytest.mark.usefixtures("evaluating")
async def test_votes_are_cast_blind_by_keyboard_and_the_win_rate_moves(
    signed_in: Page, backend: Backend, engines: Engines
) -> None:
    page = signed_in
    name, courteous = "courteous replies", "I am sorry, we are not."
    engines.answers = {"base": ["No."], "aligned": [courteous]}
    await served(page, backend, name)
    await page.get_by_label("Blind, with votes").check()
    await page.get_by_label("Several prompts").check()
    await ask(page, "Are you open today?\n\nAnd tomorrow?\n\nOn Sunday?\n\nAt night?")
    ballot = page.get_by_role("region", name="Ballot")
    rates = page.get_by_role("region", name="Win rates")
    await expect(ballot).to_be_visible()
    await expect(page.get_by_text("The models answer:")).to_have_count(0)
    await expect(ballot).to_contain_text("4 pairs to go")
    assert name not in await ballot.inner_text()  # the models' names
    await page.keyboard.press("ArrowDown")  # scrolls, and says nothing of the pair

    for place, remaining in enumerate(("3 pairs", "2 pairs", "The last pair")):
        aligned_left = await texts(page).first.inner_text() == courteous
        key = ("ArrowLeft" if aligned_left else "ArrowRight", "b", "t")[place]
        await page.keyboard.down(key)
        await expect(ballot).to_contain_text(remaining)
        await page.keyboard.down(key)  # held: a repeat
        await page.keyboard.up(key)
        await expect(rates.locator(".rate")).to_have_text(("100 %", "75 %", "67 %")[place])
    assert await look(page, "voted", 1440, "light") == []
    await page.keyboard.press("u")
    await expect(ballot).to_contain_text("2 pairs")
    await expect(rates.locator(".rate")).to_have_text("75 %")
    for remaining in ("The last pair", "voted on every pair"):
        await page.keyboard.press("s")
        await expect(page.get_by_text(remaining)).to_be_visible()

    evaluation = page.url.rpartition("=")[2]
    headers = {"Authorization": f"Bearer {backend.key}"}
    async with httpx.AsyncClient(base_url=f"{backend.url}/v1/evaluations/{evaluation}", headers=headers) as api:
        told = (await api.get("/results")).json()["judges"][0]["pairs"][0]
        assert (told["wins"], told["losses"], told["ties"]) == (1, 0, 1)
        hidden = (await api.get("/votes")).json()["data"]
        assert {vote["left"] for vote in hidden} == {None}
    assert [vote["choice"] for vote in hidden].count("both_bad") == 1

    await page.get_by_role("button", name="End and reveal").click()
    revealed = page.get_by_role("region", name="Your votes")
    await expect(revealed.get_by_role("row")).to_have_count(5)
    await expect(revealed.get_by_role("cell", name=f"{name}, base")).to_have_count(4)
    await page.reload()
    await expect(rates.locator(".rate")).to_have_text("75 %")


UNDO_AS_SOON_AS_THE_LAST_PAIR_SHOWS = """() => {
  window.undone = new Promise((resolve) => {
    const press = () => resolve(document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "u", bubbles: true })));
    new MutationObserver((_, observer) => {
      if (!document.querySelector(".ballot").textContent.includes("The last pair")) return;
      observer.disconnect();
      setTimeout(press, 0);
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
}"""


@pytest.mark.usefixtures("evaluating")
async def test_undo_takes_back_the_last_vote_although_the_list_of_votes_is_late(
    signed_in: Page, backend: Backend, engines: Engines
) -> None:
    page = signed_in
    engines.answers = {"base": ["No."], "aligned": ["Sorry."]}
    await served(page, backend, "undone")
    await page.get_by_label("Blind, with votes").check()
    await page.get_by_label("Several prompts").check()
    await ask(page, "One?\n\nTwo?\n\nThree?")
    ballot = page.get_by_role("region", name="Ballot")
    await expect(ballot).to_be_visible()
    await expect(page.get_by_text("The models answer:")).to_have_count(0)
    path = f"{backend.url}/v1/evaluations/{page.url.rpartition('=')[2]}/votes"
    await expect(ballot).to_contain_text("3 pairs to go")

    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {backend.key}"}) as api:
        await page.keyboard.press("b")
        await expect(ballot).to_contain_text("2 pairs")
        late = (await api.get(path)).json()  # from here on the list that the page is told
        await page.route(
            path, lambda route: route.fulfill(json=late) if route.request.method == "GET" else route.continue_()
        )
        await page.evaluate(UNDO_AS_SOON_AS_THE_LAST_PAIR_SHOWS)
        await page.keyboard.press("t")
        await page.evaluate("window.undone")
        await expect(ballot).to_contain_text("2 pairs")
        votes = (await api.get(path)).json()["data"]
    assert [vote["choice"] for vote in votes if vote["choice"]] == ["both_bad"]


@pytest.mark.usefixtures("evaluating")
async def test_answers_prompts_and_names_that_are_markup_are_shown_as_text(
    signed_in: Page, backend: Backend, engines: Engines
) -> None:
    page = signed_in
    engines.answers = {"base": [MARKUP], "aligned": [MARKUP, MARKUP]}
    engines.go_on.set()
    await served(page, backend, MARKUP)
    await ask(page, MARKUP)
    await expect(texts(page)).to_have_text([MARKUP, MARKUP * 2])
    await expect(page.locator("article h2").last).to_have_text(MARKUP)
    await page.get_by_label("Blind, with votes").check()
    await ask(page, MARKUP)
    await expect(page.get_by_role("region", name="Ballot").locator(".asked")).to_have_text(MARKUP)
    assert await page.evaluate("window.hacked") is None
    assert await page.locator("main img, main script").count() == 0
