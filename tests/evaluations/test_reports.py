"""Reports and cards, of names and answers that try to be more than text."""

from html.parser import HTMLParser

import pytest

from service.clock import utc_now
from service.controller.context import Controller
from service.db.session import Database
from service.db.tables import Job, Metric
from service.evaluations.repository import EvaluationRepository
from service.evaluations.results import read
from service.jobs.repository import append_event
from service.jobs.states import JobState
from service.reports import facts, html
from service.reports.card import card
from service.reports.plots import intervals, line
from service.settings import Settings
from tests.evaluations.conftest import body, make, work
from tests.evaluations.openai_server import Answer, Asked, OpenAIServer, sides
from tests.service.conftest import add_job

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'`|--- ${7*7} {{7*7}}"


class Tags(HTMLParser):
    """What a browser would make of a page: its elements and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def check(page: str) -> Tags:
    tags = Tags(page)
    assert not tags.found & {"script", "img", "iframe", "link", "object", "form", "a"}
    assert not {name for name in tags.attributes if name.startswith("on")} | tags.attributes & {"style", "src", "href"}
    assert EVIL in tags.text  # as it was written
    return tags


async def test_hostile_names_and_answers_are_text_in_an_evaluations_report(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.body["model"] == "judge":
            return Answer("Verdict: A" if "good" in sides(asked)[0] else "Verdict: B")
        return Answer(f"{asked.body['model']} {EVIL}")

    server.answer = answer
    asked = body(server, name=EVIL, prompts={"type": "inline", "items": [{"prompt": EVIL, "category": EVIL[:100]}]})
    asked["models"] = [one | {"name": f"{one['name']} <b>&amp;"} for one in asked["models"]]
    done = await work(controller, await make(database, settings, asked))
    async with database.reading() as session:
        rows, repository = await read(session, done), EvaluationRepository(session)
        items, answers = await repository.items(done.id), await repository.answers(done.id)
    tags = check(html.evaluation_report(rows, items, answers))
    assert "good <b>&amp; / bad <b>&amp;" in tags.text  # in the plot, too
    assert "svg" in tags.found
    assert "100.0%" in tags.text
    assert "pairwise-v2" in tags.text
    assert "unsafe-inline" not in html.CSP
    assert "default-src 'none'" in html.CSP


@pytest.fixture
async def job_id(database: Database) -> str:
    async with database.transaction() as session:
        older = await add_job(session, state=JobState.SUCCEEDED)
        job = await add_job(session, state=JobState.SUCCEEDED)
        job.spec = job.spec | {"name": EVIL, "model": {"source": f"job:{older.id}", "weights": "pretrained"}}
        session.add_all(
            Metric(
                job_id=job.id,
                number=step,
                attempt=1,
                split="train" if step < 10 else "held_out",
                step=step,
                values={"loss": 0.7 - step / 100, "rewards/accuracies": 0.5},
                created_at=utc_now(),
            )
            for step in range(1, 11)
        )
        await append_event(session, job, "health.alarm", f"The loss spiked. {EVIL}", data={"name": "spike", "step": 3})
        await append_event(session, job, "model.published", "", data={"data_sha256": "ab" * 32})
    return job.id


async def test_a_jobs_report_has_its_curves_alarms_data_and_lineage(database: Database, job_id: str) -> None:
    tags = check(html.job_report(await facts.of_job(database, "ada", job_id)))
    for shown in ("loss", "The loss spiked", "ab" * 32, "from job:job-", "from /models/tiny", '"batch_size"'):
        assert shown in tags.text
    assert "path" in tags.found


async def test_a_model_card_has_them_too_and_lets_a_name_make_no_markup(database: Database, job_id: str) -> None:
    made = card(await facts.of_job(database, "ada", job_id))
    assert made.startswith("---\nlibrary_name: transformers\n")
    _, front, rest = made.split("---\n", 2)
    assert "alert" not in front
    head = rest[: rest.index("## Specification")]
    assert "<script" not in head
    assert "<img" not in head
    assert "ab" * 32 in head
    assert "0.69" in head
    assert "The loss spiked" in head
    assert head.count("- from") == 2


async def test_a_model_card_names_the_commit_of_a_model_of_the_hub(database: Database, job_id: str) -> None:
    async with database.transaction() as session:
        job = await session.get_one(Job, job_id)
        job.spec = job.spec | {"model": {"source": "hf:team/model"}}
        await append_event(session, job, "model.published", "", data={"started_from": "hf:team/model@c0ffee"})
    made = card(await facts.of_job(database, "ada", job_id))
    assert "starting from `hf:team/model@c0ffee`" in made
    assert 'base_model: "team/model"' in made


def test_plots_escape_and_do_with_little() -> None:
    assert "<b>" not in intervals([("<b>", 0.5, 0.4, 0.6)], "<b>")
    assert "fewer than two" in line([(1, 2.0)], "loss")
    assert "nan" not in line([(1, 2.0), (2, 2.0)], "loss")  # a flat curve
