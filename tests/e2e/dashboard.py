"""The dashboard in Chromium on the running service, as a person uses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.dashboard.conftest import CHROMIUM_FLAGS, chromium, watch
from tests.e2e.scenario import TIMEOUT_S

AT_ONCE_S = 60  # on a machine that trains and serves models at the same time


@dataclass(frozen=True)
class Window:
    width: int
    scheme: Literal["light", "dark"]


WIDE = Window(1440, "light")
NARROW = Window(390, "dark")  # the navigation is behind a button


@contextmanager
def browsing(url: str, key: str, window: Window) -> Iterator[Page]:
    """A page that has signed in with the form. Nothing may go wrong in it: no error in the console, no refusal."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        context = browser.new_context(viewport={"width": window.width, "height": 900}, color_scheme=window.scheme)
        context.set_default_timeout(1000 * AT_ONCE_S)
        page = context.new_page()
        expect.set_options(timeout=1000 * AT_ONCE_S)
        page.goto(url)
        page.get_by_label("Key").fill(key)
        # before the session there is none to ask about, which the console notes
        errors = watch(page)  # type: ignore[arg-type] # the same events as those of an asynchronous page
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Jobs", exact=True).wait_for()
        yield page
        assert errors == []
        browser.close()


def create_job(page: Page, *, name: str, model: Path, rows: Path, steps: int) -> str:
    """Fill the form, look at the data report, wait for the admission, create; returns the job's ID."""
    menu = page.get_by_role("button", name="Menu")
    if menu.is_visible():
        menu.click()
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="New job").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("combobox", name="Model", exact=True).fill(str(model))
    group(page, "Data").locator(".advanced > summary").click()
    page.get_by_label("Max length").fill("128")
    page.get_by_label("Max bad rows").fill("4")
    page.get_by_label("Training file").set_input_files(rows)
    group(page, "Training").locator(".advanced > summary").click()
    for label, value in (("Max steps", str(steps)), ("Batch size", "8"), ("Learning rate", "1e-2")):
        page.get_by_label(label).fill(value)
    page.get_by_label("Precision").select_option("float32")
    page.get_by_role("checkbox", name="Serve").uncheck()
    expect(page.locator(".sample .token.completion").first).to_be_visible()
    expect(page.get_by_text("The job would be accepted.")).to_be_visible()
    page.get_by_role("button", name="Create the job").click()
    page.wait_for_url("**/jobs/job-*")
    return page.url.rpartition("/")[2]


def group(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def state(page: Page) -> Locator:
    """Of the job whose page this is."""
    return page.locator("main .state").first


def watch_to_the_end(page: Page) -> None:
    expect(state(page)).to_have_text("succeeded", timeout=1000 * TIMEOUT_S)


def log_of_the_attempt(page: Page, attempt_id: str) -> None:
    """Every line of its processes names it."""
    page.get_by_text("What its processes wrote").click()
    expect(page.get_by_role("log", name="Log")).to_contain_text(attempt_id)


def cancel(page: Page, url: str, job_id: str) -> None:
    page.goto(f"{url}/jobs/{job_id}")
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(state(page)).to_have_text("cancelled", timeout=1000 * TIMEOUT_S)


def compare(page: Page, url: str, job_id: str, prompt: str) -> list[str]:
    """The answers of base and aligned."""
    page.goto(f"{url}/side-by-side?job={job_id}")
    page.get_by_label("Tokens, at most").fill("12")
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("article.answer small")).to_have_count(2)
    return page.locator("article.answer .text").all_inner_texts()


def vote_blind(page: Page, prompts: list[str]) -> list[str]:
    """Vote left on all but the last pair, and a tie on that; returns the win rate after each vote."""
    page.get_by_label("Blind, with votes").check()
    page.get_by_label("Several prompts").check()
    page.locator("textarea").fill("\n\n".join(prompts))
    page.get_by_role("button", name="Start voting").click()
    ballot = page.get_by_role("region", name="Ballot")
    shown = page.get_by_role("region", name="Win rates")
    rates = []
    for votes in range(1, len(prompts) + 1):
        left = len(prompts) - votes + 1
        said = "The last pair" if left == 1 else f"{left} pairs to go"
        expect(ballot).to_contain_text(said, timeout=1000 * TIMEOUT_S)
        page.keyboard.press("ArrowLeft" if left > 1 else "t")
        expect(shown).to_contain_text(f"So far: {votes} vote")
        rates.append(shown.locator(".rate").inner_text())
    page.get_by_role("button", name="End and reveal").click()
    expect(page.get_by_role("region", name="Your votes").get_by_role("row")).to_have_count(len(prompts) + 1)
    return rates
