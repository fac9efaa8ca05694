import json
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest

from service.controller.context import Controller
from service.db.session import Database
from service.deployments.uses import DeploymentUses
from service.errors import GateNotPassed, InvalidState
from service.evaluations import gates, pairs, votes
from service.evaluations.gate import Promoted, Rule, check
from service.evaluations.replay import replay
from service.evaluations.repository import EvaluationRepository
from service.evaluations.results import results
from service.evaluations.votes import Choice
from service.files import service as files
from service.settings import Settings
from tests.evaluations.conftest import body, look, make, model_answers, voter, work
from tests.evaluations.openai_server import Answer, Asked, OpenAIServer, sides

GOOD, BAD = Promoted("good", "job-1"), Promoted("bad", "job-2")


def judge_who_says(reply: str) -> Callable[[Asked], Answer]:
    return lambda asked: Answer(reply) if asked.body["model"] == "judge" else model_answers(asked)


judge_who_likes_the_first_place = judge_who_says("Verdict: A")


async def test_a_judge_who_always_finds_the_good_model_better_gives_it_every_prompt(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    done = await work(controller, await make(database, settings, body(server)))
    found = await results(database, done)
    [judge] = found.judges
    [pair] = judge.pairs
    assert (pair.model, pair.baseline, pair.wins, pair.losses, pair.ties) == ("good", "bad", 10, 0, 0)
    assert pair.win_rate is not None
    assert (pair.win_rate.estimate, pair.win_rate.num_clusters) == (1.0, 10)
    assert pair.win_rate.low > 0.5
    assert pair.sequential.num == 10
    assert pair.sequential.decision == "better"
    assert [one.category for one in pair.categories] == ["even", "odd"]
    assert judge.position is not None
    assert not judge.position.biased
    assert judge.position.consistent is not None
    assert judge.position.consistent.estimate == 1
    assert [(one.model, one.answered, one.failed) for one in found.models] == [("bad", 10, 0), ("good", 10, 0)]


async def test_a_judge_who_goes_by_the_place_gives_ties_and_is_called_biased(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    server.answer = judge_who_likes_the_first_place
    found = await results(database, await work(controller, await make(database, settings, body(server))))
    [judge] = found.judges
    assert (judge.pairs[0].wins, judge.pairs[0].ties) == (0, 10)
    assert judge.position is not None
    assert judge.position.biased
    assert judge.pairs[0].sequential.decision is None


async def test_what_a_judge_says_in_one_order_alone_decides_nothing(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    """A judge who goes by the place, and is understood in one of the orders only."""

    def answer(asked: Asked) -> Answer:
        if asked.body["model"] != "judge":
            return model_answers(asked)
        return Answer("Verdict: A" if "good" in sides(asked)[0] else "I cannot say.")

    server.answer = answer
    found = await results(database, await work(controller, await make(database, settings, body(server))))
    [judge] = found.judges
    assert (judge.num, judge.failed) == (10, 10)
    [pair] = judge.pairs
    assert (pair.wins, pair.win_rate, pair.sequential.num, judge.position) == (0, None, 0, None)
    assert not any(one.passed for one in check(Rule(min_win_rate=0.5, no_position_bias=True), found, GOOD))


async def test_people_and_a_model_who_agree_are_said_to(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    judges = [{"type": "human"}, body(server)["judges"][0]]
    evaluation = await work(controller, await make(database, settings, body(server, judges=judges)))
    for name in ("ada", "bob"):
        caller = voter(name)
        for place in range(8):
            dealt = await votes.deal(database, caller, evaluation.id)
            assert dealt is not None
            choice = Choice.TIE if place == 0 else Choice.LEFT if "good" in dealt.left else Choice.RIGHT
            async with database.transaction() as session:
                await votes.cast(session, caller, evaluation.id, dealt.vote.id, choice)
    found = await results(database, evaluation)
    people, model = found.judges
    assert (people.type, people.voters, people.num, model.type, model.voters) == ("human", 2, 16, "llm", None)
    assert (people.pairs[0].wins, people.pairs[0].ties) == (14, 2)
    assert people.pairs[0].win_rate is not None
    assert people.pairs[0].win_rate.estimate == 15 / 16
    assert people.pairs[0].sequential.num == people.pairs[0].win_rate.num_clusters  # one for each prompt
    assert found.agreement is not None
    assert found.agreement.raters == 3


async def test_three_models_are_ranked(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    order = {"worst": 0, "middle": 1, "best": 2}

    def answer(asked: Asked) -> Answer:
        if asked.body["model"] in order:
            return Answer(asked.body["model"])
        first, second = sides(asked)
        number = int(asked.text.split("question ")[1].split()[0])
        best = order[first] > order[second]
        return Answer(f"Verdict: {'A' if best != (number % 4 == 0) else 'B'}")  # wrong about every fourth prompt

    server.answer = answer
    endpoint = body(server)["models"][0]["endpoint"]
    models = [{"name": name, "endpoint": endpoint | {"model": name}} for name in order]
    found = await results(database, await work(controller, await make(database, settings, body(server, models=models))))
    [judge] = found.judges
    assert len(judge.pairs) == 3
    assert judge.ranking is not None
    assert [one.model for one in judge.ranking] == ["best", "middle", "worst"]


async def test_verdicts_become_a_training_file(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.body["model"] == "judge" and "question 3" in asked.text:
            return Answer("Verdict: tie")
        return model_answers(asked)

    server.answer = answer
    done = await work(controller, await make(database, settings, body(server)))
    made = await pairs.export(database, settings, "ada", done.id)
    assert (made.num_pairs, made.left_out) == (9, {"tie": 1})
    _, content = await files.open_content(database, settings, "ada", made.file.id)
    with content:
        rows = [json.loads(line) for line in content]
    assert rows[0] == {
        "prompt": [{"role": "user", "content": "question 0"}],
        "chosen": [{"role": "assistant", "content": "a good answer to question 0, seed 0"}],
        "rejected": [{"role": "assistant", "content": "a bad answer to question 0, seed 0"}],
    }
    assert not any(row["prompt"][0]["content"] == "question 3" for row in rows)
    again = await pairs.export(database, settings, "ada", done.id)
    assert again.file.id == made.file.id
    assert (await pairs.export(database, settings, "ada", done.id, min_share=1.0)).file.id == made.file.id
    with pytest.raises(InvalidState):  # no model of it comes from a job
        await pairs.export(database, settings, "ada", done.id, next_job={})


async def test_without_a_winner_there_is_no_file(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    server.answer = judge_who_likes_the_first_place
    done = await work(controller, await make(database, settings, body(server)))
    with pytest.raises(InvalidState) as refused:
        await pairs.export(database, settings, "ada", done.id)
    assert refused.value.extra["left_out"] == {"tie": 10}


async def test_a_replay_gives_the_same_text_or_says_what_differs(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    done = await work(controller, await make(database, settings, body(server)))
    async with httpx.AsyncClient() as client:
        same = await replay(database, settings, DeploymentUses(), client, "ada", done.id, 4, 1)
        assert (same.now, same.first_difference, same.changed) == (same.stored, None, [])
        asked, first = server.asked[-1].body, next(one.body for one in server.asked if one.text == "question 4")
        assert asked | {"model": 0} == first | {"model": 0}
        server.answer = lambda asked: Answer("a good reply")
        other = await replay(database, settings, DeploymentUses(), client, "ada", done.id, 4, 1)
    assert other.first_difference == len("a good ")


async def test_a_gate_lets_through_what_its_rule_asks_for_and_says_what_is_missing(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    done = await work(controller, await make(database, settings, body(server)))
    found = await results(database, done)
    assert all(one.passed for one in check(Rule(min_win_rate=0.5, min_votes=10, decided=True), found, GOOD))
    [few] = check(Rule(min_votes=11), found, GOOD)
    assert (few.passed, few.required, few.found) == (False, "11 or more", "10")
    assert not any(one.passed for one in check(Rule(min_win_rate=0.5), found, BAD))  # it was compared with none
    assert not any(one.passed for one in check(Rule(min_win_rate=0.5, judge="people"), found, GOOD))
    assert not any(one.passed for one in check(Rule(min_accuracy=0.5), found, GOOD))
    assert not any(one.passed for one in check(Rule(min_agreement=0.1), found, GOOD))
    for rule, passed in (
        (Rule(min_prompts=10, judge_prompt="pairwise-v2"), [True, True]),
        (Rule(min_prompts=11, judge_prompt="pairwise-v3"), [False, False]),
        (Rule(min_win_rate=0.5, baseline="job:job-2"), [True]),
    ):
        assert [one.passed for one in check(rule, found, replace(GOOD, baseline="bad"))] == passed
    [missing] = check(Rule(min_win_rate=0.5, baseline="job:job-2"), found, GOOD)
    assert (missing.passed, "with 'job:job-2'" in missing.what) == (False, True)
    server.answer = judge_who_likes_the_first_place
    biased = await results(database, await work(controller, await make(database, settings, body(server))))
    assert not any(one.passed for one in check(Rule(no_position_bias=True), biased, GOOD))


async def test_an_evaluation_that_nobody_has_voted_in_passes_no_gate(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    judges = [{"type": "human"}]
    found = await results(database, await work(controller, await make(database, settings, body(server, judges=judges))))
    for rule in (Rule(no_position_bias=True), Rule(min_win_rate=0), Rule(min_votes=1), Rule(decided=True)):
        [missing] = check(rule, found, GOOD)
        assert not missing.passed, rule


async def test_a_promotion_goes_by_the_newest_evaluation_of_the_very_model(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    async def why(project_id: str = "ada") -> str | None:
        try:
            async with database.transaction() as session:
                await gates.require_passed(session, project_id, "helper", "job-1", None)
        except GateNotPassed as error:
            return error.detail
        return None

    assert await why() is None  # there is no gate
    async with database.transaction() as session:
        await gates.put(session, "ada", "*", Rule(min_win_rate=0.5))
    assert "no evaluation of job:job-1" in (await why() or "")
    assert await why("bob") is None
    for reply, refused in (("Verdict: tie", True), ("", False)):
        server.answer = judge_who_says(reply) if reply else model_answers
        done = await work(controller, await make(database, settings, body(server)))
        async with database.transaction() as session:  # as if the good one had been a job's
            row = await EvaluationRepository(session).get(done.id)
            good = row.spec["models"][1] | {"model": "job:job-1", "endpoint": None}
            row.spec = row.spec | {"models": [row.spec["models"][0], good]}
        found = await why()
        assert (found is not None) == refused
        if found:
            assert done.id in found
            assert "min_win_rate" in found
            assert "above 0.5" in found
    async with database.transaction() as session:  # a name's own gate comes before the project's
        await gates.put(session, "ada", "helper", Rule(min_votes=11))
    assert "11 or more" in (await why() or "")


async def test_results_while_it_runs_count_what_there_is(
    database: Database, settings: Settings, server: OpenAIServer
) -> None:
    evaluation = await make(database, settings, body(server))
    found = await results(database, await look(database, evaluation))
    assert found.judges[0].pairs[0].win_rate is None
    assert found.judges[0].pairs[0].sequential.p_bound == 1.0
    assert found.agreement is None
