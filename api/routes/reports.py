"""Reports of jobs and evaluations, and model cards: documents for people, each of one file."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from api.deps import DatabaseDep, ProjectDep
from api.problems import problems
from service.errors import InvalidState, NotFound
from service.evaluations.repository import EvaluationRepository
from service.jobs.states import JobState

router = APIRouter(tags=["evaluations"])

_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
_MARKDOWN: dict[int | str, dict[str, Any]] = {200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}}


class Report(Response):
    """A page with a policy of its own, under which nothing in it runs and nothing is loaded."""

    media_type = "text/html"


class Card(Response):
    media_type = "text/markdown"


@router.get("/jobs/{job_id}/report", response_class=Report, responses=_HTML | problems(NotFound))
async def job_report(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> Report:
    """What the job made, from what, how it went and what evaluations say of it, as one HTML file."""
    from service.reports import facts, html  # numpy and jinja2, for those who ask

    found = await facts.of_job(database, project_id, job_id)
    page = await asyncio.to_thread(html.job_report, found)
    return Report(page, headers={"Content-Security-Policy": html.CSP})


@router.get("/jobs/{job_id}/model-card", response_class=Card, responses=_MARKDOWN | problems(NotFound, InvalidState))
async def model_card(job_id: str, project_id: ProjectDep, database: DatabaseDep) -> Card:
    """The card of a succeeded job's model in the form of Hugging Face, with the evaluations that there are by now."""
    from service.reports import facts
    from service.reports.card import card

    found = await facts.of_job(database, project_id, job_id)
    if found.job.state is not JobState.SUCCEEDED:
        raise InvalidState(f"The job is {found.job.state}: it has made no model.", state=found.job.state)
    return Card(card(found))


@router.get("/evaluations/{evaluation_id}/report", response_class=Report, responses=_HTML | problems(NotFound))
async def evaluation_report(evaluation_id: str, project_id: ProjectDep, database: DatabaseDep) -> Report:
    """The results with the first answers and all that they rest on, as one HTML file."""
    from service.evaluations.results import read
    from service.reports import html

    async with database.reading() as session:
        repository = EvaluationRepository(session)
        evaluation = await repository.get_in_project(evaluation_id, project_id)
        rows = await read(session, evaluation)
        items = await repository.item_page(evaluation_id, after=-1, limit=html.NUM_EXAMPLES)
        answers = await repository.answers(evaluation_id, [one.position for one in items])
    page = await asyncio.to_thread(html.evaluation_report, rows, items, answers)
    return Report(page, headers={"Content-Security-Policy": html.CSP})
