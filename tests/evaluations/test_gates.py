"""What a gate asks for before a model is promoted, and which evaluation it goes by."""

from typing import Any

import pytest

from service.controller.context import Controller
from service.db.evaluation_tables import Evaluation
from service.db.session import Database
from service.errors import GateNotPassed
from service.evaluations import gates, votes
from service.evaluations import service as evaluations
from service.evaluations.gate import Rule
from service.evaluations.repository import EvaluationRepository
from service.evaluations.votes import Choice
from service.settings import Settings
from tests.evaluations.conftest import body, make, voter, work
from tests.evaluations.openai_server import OpenAIServer


async def why_not(database: Database, rule: Rule) -> str | None:
    async with database.transaction() as session:
        await gates.put(session, "ada", "helper", rule)
    try:
        async with database.transaction() as session:
            await gates.require_passed(session, "ada", "helper", "job-1", None)
    except GateNotPassed as error:
        return error.detail
    return None


async def evaluated(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, **changed: Any
) -> Evaluation:
    """As if the good model had been a job's."""
    done = await work(controller, await make(database, settings, body(server, **changed)))
    async with database.transaction() as session:
        row = await EvaluationRepository(session).get(done.id)
        good = row.spec["models"][1] | {"model": "job:job-1", "endpoint": None}
        row.spec = row.spec | {"models": [row.spec["models"][0], good]}
    return done


async def vote_for_the_good_one(database: Database, evaluation: Evaluation, num: int) -> None:
    for _ in range(num):
        dealt = await votes.deal(database, voter("ada"), evaluation.id)
        assert dealt is not None
        choice = Choice.LEFT if "good" in dealt.left else Choice.RIGHT
        async with database.transaction() as session:
            await votes.cast(session, voter("ada"), evaluation.id, dealt.vote.id, choice)


@pytest.mark.parametrize(("num", "passed"), [(6, False), (9, True)])
async def test_people_who_stop_when_it_looks_good_pass_only_by_what_holds_whenever_they_stop(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, num: int, passed: bool
) -> None:
    evaluation = await evaluated(database, settings, controller, server, judges=[{"type": "human"}])
    await vote_for_the_good_one(database, evaluation, num)
    rule = Rule(min_win_rate=0.5)
    assert "is completed" in (await why_not(database, rule) or "")  # they may yet vote otherwise
    async with database.transaction() as session:
        await evaluations.close(session, "ada", evaluation.id)
    found = await why_not(database, rule)
    assert (found is None) == passed
    if found:  # the interval of a number of votes that was fixed beforehand would be above 0.5
        assert "confidence sequence against 'bad' by 'people' must be above 0.5, and is 0.468" in found
