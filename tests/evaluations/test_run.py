import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from service.controller import evaluate as evaluate_module
from service.controller.context import Controller
from service.controller.evaluate import Evaluate
from service.db.session import Database
from service.errors import SpecUnreadable
from service.evaluations import ask as ask_module
from service.evaluations import service as evaluations
from service.evaluations.repository import EvaluationRepository
from service.evaluations.service import request_of
from service.evaluations.states import EvaluationState
from service.settings import EndpointKey, Settings
from tests.evaluations.conftest import body, look, make, model_answers, work
from tests.evaluations.openai_server import Answer, Asked, OpenAIServer, answering


async def test_every_model_answers_every_prompt_and_every_pair_is_judged_in_both_orders(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    done = await work(controller, await make(database, settings, body(server)))
    assert done.state is EvaluationState.COMPLETED
    async with database.reading() as session:
        repository = EvaluationRepository(session)
        answers, verdicts = await repository.answers(done.id), await repository.verdicts(done.id)
    assert [(one.position, one.model) for one in answers] == [(at, model) for at in range(10) for model in (0, 1)]
    assert answers[5].text == "a good answer to question 2, seed 2"
    assert (answers[5].request["seed"], answers[5].engine, answers[5].finish_reason) == (2, "fp-1", "stop")
    assert len(verdicts) == 20
    assert {one.outcome for one in verdicts} == {1.0}
    assert {(one.position, one.model_first) for one in verdicts} == {
        (at, on) for at in range(10) for on in (True, False)
    }
    assert all(asked.headers["authorization"] == "Bearer sk-of-the-operator" for asked in server.asked)


async def test_a_controller_that_is_killed_asks_nothing_twice_that_was_answered(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    evaluation = await make(database, settings, body(server))
    for number in (5, 12, 25, 100):  # answers of the server after which its controller dies
        evaluate = Evaluate()
        async with asyncio.timeout(30):
            while len(server.asked) < number and not (await look(database, evaluation)).state.terminal:
                await evaluate.reconcile(controller)
                await asyncio.sleep(0)
        await evaluate.__aexit__(None, None, None)
    done = await work(controller, evaluation)
    assert done.state is EvaluationState.COMPLETED
    async with database.reading() as session:
        counts = await EvaluationRepository(session).counts(done.id)
    assert (counts["answers"], counts["verdicts"]) == (20, 20)
    # four deaths, at each of which at most 4 questions were under way to the one server
    assert 40 <= len(server.asked) <= 40 + 4 * 4


async def test_an_evaluation_that_another_version_accepted_fails_and_the_others_go_on(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    theirs = await make(database, settings, body(server))
    ours = await make(database, settings, body(server))
    async with database.transaction() as session:
        stored = await EvaluationRepository(session).get(theirs.id)
        stored.spec = stored.spec | {"judges": [{"type": "oracle"}]}
    assert (await work(controller, ours)).state is EvaluationState.COMPLETED
    failed = await look(database, theirs)
    assert (failed.state, failed.error and failed.error["code"]) == (EvaluationState.FAILED, "spec_unreadable")
    with pytest.raises(SpecUnreadable, match="another version"):
        request_of(failed)


async def test_a_server_that_asks_for_patience_gets_it(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    busy = iter([Answer("slow down", 429, {"Retry-After": "1"}), Answer("overloaded", 503)])

    def answer(asked: Asked) -> Answer:
        return next(busy, None) or model_answers(asked)

    server.answer = answer
    started = asyncio.get_running_loop().time()
    done = await work(controller, await make(database, settings, body(server)))
    assert asyncio.get_running_loop().time() - started >= 1
    assert done.state is EvaluationState.COMPLETED
    assert len(server.asked) == 42


@pytest.mark.parametrize("who", ["good", "judge"])
async def test_an_outage_is_waited_for_and_leaves_no_holes(
    database: Database,
    settings: Settings,
    controller: Controller,
    server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
) -> None:
    monkeypatch.setattr(evaluate_module, "_AWAY_WAIT_S", 0.01)
    monkeypatch.setattr(ask_module, "_FIRST_WAIT_S", 0.01)
    is_out = True

    def answer(asked: Asked) -> Answer:
        return Answer("overloaded", 503) if is_out and asked.body["model"] == who else model_answers(asked)

    server.answer = answer
    evaluation = await make(database, settings, body(server))
    async with Evaluate() as evaluate, asyncio.timeout(30):
        while (waiting := await look(database, evaluation)).error is None:
            await evaluate.reconcile(controller)
            await asyncio.sleep(0.01)
    assert waiting.state is EvaluationState.RUNNING
    assert waiting.error["code"] == "waiting"
    assert "answered 503: overloaded; asked 2 times" in waiting.error["message"]
    is_out = False
    done = await work(controller, evaluation)
    assert (done.state, done.error) == (EvaluationState.COMPLETED, None)
    async with database.reading() as session:
        repository = EvaluationRepository(session)
        answers, verdicts = await repository.answers(done.id), await repository.verdicts(done.id)
    assert len([one for one in answers if one.text]) == 20
    assert len([one for one in verdicts if one.outcome is not None]) == 20


async def test_a_server_that_cannot_be_reached_is_waited_for_until_the_evaluation_is_cancelled(
    database: Database, settings: Settings, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask_module, "_FIRST_WAIT_S", 0.01)
    with answering(model_answers) as gone:
        pass
    reachable = settings.model_copy(
        update={
            "evaluation_origins": [gone.origin],
            "evaluation_keys": {"ours": EndpointKey(origin=gone.origin, key="k")},
        }
    )
    controller = replace(controller, settings=reachable)
    evaluation = await make(database, reachable, body(gone))
    async with Evaluate() as evaluate, asyncio.timeout(30):
        while (waiting := await look(database, evaluation)).error is None:
            await evaluate.reconcile(controller)
            await asyncio.sleep(0.01)
        assert "cannot be reached" in waiting.error["message"]
        async with database.transaction() as session:
            await evaluations.cancel(session, "ada", evaluation.id)
        await evaluate.reconcile(controller)
    ended = await look(database, evaluation)
    assert (ended.state, ended.error) == (EvaluationState.CANCELLED, None)
    async with database.reading() as session:
        assert await EvaluationRepository(session).answers(evaluation.id) == []


async def test_what_cannot_be_had_is_counted_and_not_guessed(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.body["model"] == "bad" and asked.text == "question 3":
            return Answer("the prompt is too long", 400)
        if asked.body["model"] == "judge" and "question 4" in asked.text:
            return Answer("Verdict: A would be fair, but so would B.")
        return model_answers(asked)

    server.answer = answer
    done = await work(controller, await make(database, settings, body(server)))
    assert done.state is EvaluationState.COMPLETED
    async with database.reading() as session:
        repository = EvaluationRepository(session)
        answers, verdicts = await repository.answers(done.id), await repository.verdicts(done.id)
    [failed] = [one for one in answers if one.error]
    assert (failed.position, failed.model, failed.text) == (3, 0, None)
    assert "too long" in (failed.error or "")
    assert {one.position for one in verdicts if one.outcome is None} == {4}
    assert all(one.failure and one.reply for one in verdicts if one.position == 4)
    assert 3 not in {one.position for one in verdicts}


@pytest.mark.parametrize("status", [401, 404, 302])
async def test_a_server_that_answers_nothing_ends_the_evaluation_and_says_why(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, status: int
) -> None:
    server.answer = lambda asked: Answer("wrong key sk-of-the-operator given", status)
    done = await work(controller, await make(database, settings, body(server)))
    assert done.state is EvaluationState.FAILED
    assert done.error is not None
    assert done.error["code"] == "endpoint_unusable"
    assert f"answered {status}" in done.error["message"]
    assert "sk-of-the-operator" not in done.error["message"]
    assert len(server.asked) <= 2 * settings.evaluation_concurrency


async def test_an_evaluation_that_is_cancelled_stops_and_keeps_what_it_has(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    sent: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        sent.append(request)

    evaluation = await make(database, settings, body(server))
    async with Evaluate() as evaluate, asyncio.timeout(30):
        evaluate._client.event_hooks = {"request": [note]}
        while len(server.asked) < 5:
            await evaluate.reconcile(controller)
            await asyncio.sleep(0)
        async with database.transaction() as session:
            await evaluations.cancel(session, "ada", evaluation.id)
        while not (await look(database, evaluation)).state.terminal:
            await evaluate.reconcile(controller)
            await asyncio.sleep(0)
        asked = len(sent)  # the server may yet read what was under way
        await evaluate.reconcile(controller)
    assert (await look(database, evaluation)).state is EvaluationState.CANCELLED
    assert len(sent) == asked < 40


async def test_with_people_to_judge_it_waits_for_votes(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer
) -> None:
    done = await work(controller, await make(database, settings, body(server, judges=[{"type": "human"}])))
    assert done.state is EvaluationState.VOTING


async def test_a_metric_of_an_installed_package_scores_every_answer(
    database: Database,
    settings: Settings,
    controller: Controller,
    server: OpenAIServer,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "our_metrics.py").write_text(
        "def words(prompt, answer):\n    return len(answer.split()) if prompt != 'question 7' else 1 / 0\n"
    )
    info = tmp_path / "our_metrics-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-metrics\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[plumbline.metrics]\nour_words = our_metrics:words\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    judge = {"type": "metric", "name": "words", "metric": "our_words"}
    done = await work(controller, await make(database, settings, body(server, judges=[judge])))
    async with database.reading() as session:
        scores = await EvaluationRepository(session).scores(done.id)
    assert len(scores) == 20
    assert {one.value for one in scores if one.position != 7} == {8.0}
    assert all("ZeroDivisionError" in (one.failure or "") for one in scores if one.position == 7)


async def test_a_metric_that_cannot_be_loaded_fails_its_scores_alone(
    database: Database,
    settings: Settings,
    controller: Controller,
    server: OpenAIServer,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "broken_metrics.py").write_text("raise RuntimeError('no licence')\n")
    info = tmp_path / "broken_metrics-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-metrics\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[plumbline.metrics]\nbroken = broken_metrics:words\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    judge = {"type": "metric", "name": "words", "metric": "broken"}
    done = await work(controller, await make(database, settings, body(server, judges=[judge])))
    async with database.reading() as session:
        scores = await EvaluationRepository(session).scores(done.id)
    assert done.state is EvaluationState.COMPLETED
    assert {one.failure for one in scores} == {"RuntimeError: no licence"}
