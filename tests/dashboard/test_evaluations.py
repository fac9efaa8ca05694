"""The pages of evaluations: the list, the form, and what an evaluation shows."""

import re
from collections.abc import Iterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from service.controller.context import make_controller
from service.db.evaluation_tables import Evaluation
from tests.dashboard.backend import PROJECT, Backend
from tests.evaluations.conftest import body, make, model_answers, work
from tests.evaluations.openai_server import Answer, Asked, OpenAIServer, answering

pytestmark = pytest.mark.asyncio(loop_scope="package")

HOSTILE = "<img src=x onerror=alert(1)>"


def hostile(asked: Asked) -> Answer:
    said = model_answers(asked)
    return said if asked.body["model"] == "judge" else Answer(f"{said.text} {HOSTILE}")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with answering(hostile) as server:
        yield server


async def evaluated(backend: Backend, server: OpenAIServer, name: str) -> Evaluation:
    """An evaluation that machines have worked through and people may vote in."""
    asked = body(server, name=name, judges=[{"type": "human"}, body(server)["judges"][0]])
    for one in (*asked["models"], asked["judges"][1]):
        one["endpoint"] = {name: value for name, value in one["endpoint"].items() if name != "secret"}
    settings = backend.settings.model_copy(update={"evaluation_origins": [server.origin]})
    async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as cluster:
        made = await make(backend.database, settings, asked, project_id=PROJECT)
        return await work(make_controller(settings, backend.database, cluster), made)


@pytest_asyncio.fixture(loop_scope="package")
async def evaluation(backend: Backend, server: OpenAIServer) -> Evaluation:
    return await evaluated(backend, server, f"of {HOSTILE}")


async def test_the_page_shows_the_numbers_of_the_api_and_hostile_texts_as_text(
    signed_in: Page, backend: Backend, evaluation: Evaluation
) -> None:
    await signed_in.goto(f"{backend.url}/evaluations")
    await signed_in.get_by_role("link", name=f"of {HOSTILE}").first.click()
    await expect(signed_in.get_by_role("heading", level=1)).to_have_text(f"of {HOSTILE}")
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {backend.key}"}) as client:
        results = (await client.get(f"{backend.url}/v1/evaluations/{evaluation.id}/results")).json()
    [judge] = [one for one in results["judges"] if one["type"] == "llm"]
    rate = judge["pairs"][0]["win_rate"]
    shown = f"{100 * rate['estimate']:.1f} % [{100 * rate['low']:.1f} %, {100 * rate['high']:.1f} %]"
    card = signed_in.get_by_role("region", name="judge")
    await expect(card.get_by_text(shown).first).to_be_visible()
    await expect(card.get_by_text("better, p ≤")).to_be_visible()

    await signed_in.get_by_text("Prompts and answers").click()
    await expect(signed_in.get_by_role("article", name="Prompt 0")).to_contain_text(HOSTILE)
    await expect(signed_in.locator("main img")).to_have_count(0)

    await signed_in.get_by_role("button", name="Make preference pairs").click()
    await expect(signed_in.get_by_text("10 pairs are in")).to_be_visible()

    await signed_in.get_by_role("button", name="Close").click()
    await expect(signed_in.locator(".head .state")).to_have_text("completed")


async def test_a_report_opens_in_the_browser_and_runs_nothing(
    signed_in: Page, backend: Backend, evaluation: Evaluation
) -> None:
    await signed_in.goto(f"{backend.url}/v1/evaluations/{evaluation.id}/report")
    await expect(signed_in.get_by_role("heading", level=1)).to_have_text(f"of {HOSTILE}")
    await expect(signed_in.locator("svg").first).to_be_visible()
    width = await signed_in.locator("body").evaluate("body => getComputedStyle(body).maxWidth")
    assert width == "960px"  # its style sheet is let in by its digest


async def test_an_evaluation_is_made_from_the_page(signed_in: Page, backend: Backend) -> None:
    driver = await backend.succeeded("to evaluate", serve=True)
    await signed_in.add_init_script("delete Crypto.prototype.randomUUID")  # as over plain HTTP on another host
    await signed_in.goto(f"{backend.url}/evaluations?new&job={driver.job_id}")
    await signed_in.get_by_label("Name", exact=True).fill("made here")
    await signed_in.get_by_label("From").select_option("texts")
    await signed_in.get_by_label("Prompts, an empty line between two").fill("One?\n\nTwo?\nand more")
    await signed_in.get_by_role("button", name="Evaluate").click()
    await expect(signed_in.get_by_role("heading", level=1)).to_have_text("made here")
    await expect(signed_in.get_by_text("0 of 4")).to_be_visible()
    await expect(signed_in.locator(".head .state")).to_have_text("queued")
    await signed_in.get_by_role("button", name="Cancel").click()
    await expect(signed_in.locator(".head .state")).to_have_text("cancelled")


async def test_the_form_offers_every_kind_of_judge(signed_in: Page, backend: Backend) -> None:
    driver = await backend.succeeded("to judge", serve=True)
    await signed_in.goto(f"{backend.url}/evaluations?new&job={driver.job_id}")
    await signed_in.get_by_label("A model, each pair in both orders").check()
    await signed_in.get_by_role("combobox", name="Judge", exact=True).select_option(f"job:{driver.job_id}")
    await signed_in.get_by_text("What it is told").click()
    await expect(signed_in.get_by_label("Prompt, with the places")).to_have_value(re.compile("Verdict"))
    await signed_in.get_by_label("Implicit rewards on held-out pairs").check()
    await signed_in.get_by_label("The metric words").check()
    await signed_in.get_by_label("From").select_option("texts")
    await signed_in.get_by_label("Prompts, an empty line between two").fill("One?")
    await signed_in.get_by_role("button", name="Evaluate").click()
    await signed_in.wait_for_url("**/evaluations/eval-*")
    async with backend.client() as client:
        made = (await client.get(f"/v1/evaluations/{signed_in.url.rpartition('/')[2]}")).json()
    judges = [(one["type"], one["name"]) for one in made["spec"]["judges"]]
    assert judges == [
        ("human", "people"),
        ("llm", "judge"),
        ("implicit_reward", "implicit reward"),
        ("metric", "words"),
    ]
    assert made["judge_prompt_versions"] == {"judge": "pairwise-v2"}
