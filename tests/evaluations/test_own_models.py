"""Models of jobs: asked where they are served, deployed if they are not, and kept from sleep meanwhile."""

import json

import pytest

from service.clock import utc_now
from service.controller.context import Controller
from service.controller.evaluate import Evaluate
from service.db.session import Database
from service.db.tables import Job, Metric
from service.deployments import service as deployments
from service.errors import GateNotPassed, IdempotencyConflict
from service.evaluations import gates, pairs
from service.evaluations.gate import Promoted, Rule, check
from service.evaluations.repository import EvaluationRepository
from service.evaluations.results import results
from service.evaluations.states import EvaluationState
from service.jobs.repository import append_event
from service.jobs.states import DeploymentState, JobState
from service.promotions import service as promotions
from service.settings import Settings
from service.spec import Storage
from tests.api.test_data_report import a_report
from tests.evaluations.conftest import look, make, work
from tests.evaluations.openai_server import Answer, Asked, OpenAIServer, sides
from tests.service.conftest import add_job, deploy, make_model


@pytest.fixture
def settings(settings: Settings, server: OpenAIServer) -> Settings:
    return settings.model_copy(update={"serve_url": server.origin})


@pytest.fixture
async def job(database: Database, settings: Settings) -> Job:
    """Succeeded, with a model without a chat template and two rows that it held out."""
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
    storage = Storage(settings.storage_root)
    make_model(storage.model(job.id))
    (storage.model(job.id) / "tokenizer_config.json").write_text("{}")
    storage.run(job.id).mkdir(parents=True)
    rows = [{"row": number, "prompt": f"Row {number}:", "answers": ["a", "b"]} for number in (3, 7)]
    storage.held_out(job.id).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return job


def asked(job: Job) -> dict[str, object]:
    return {
        "models": [
            {"name": "base", "model": f"job:{job.id}:base"},
            {"name": "aligned", "model": f"job:{job.id}"},
        ],
        "prompts": {"type": "held_out", "job_id": job.id},
        "judges": [{"type": "implicit_reward"}],
        "sampling": {"max_tokens": 16, "seed": 5},
    }


async def test_base_and_aligned_model_answer_the_held_out_rows_where_they_are_served(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, job: Job
) -> None:
    server.answer = lambda asked: Answer(f"{asked.body['model']} says")
    async with database.transaction() as session:
        deployment = await deploy(session, job)
    done = await work(controller, await make(database, settings, asked(job)))
    assert (done.state, done.job_id, done.num_items) == (EvaluationState.COMPLETED, job.id, 2)
    async with database.reading() as session:
        answers = await EvaluationRepository(session).answers(done.id)
        used = await deployments.find(session, job)
    assert [one.text for one in answers] == ["base says", "aligned says"] * 2
    # without a chat template the models go on from the text, sampled alike
    assert {one.path.rpartition("/")[2] for one in server.asked} == {"completions"}
    assert {one.body["prompt"] for one in server.asked} == {"Row 3:", "Row 7:"}
    assert {(one.body["prompt"], one.body["seed"]) for one in server.asked} == {("Row 3:", 5), ("Row 7:", 6)}
    assert used is not None
    assert used.used_at is not None or deployment.used_at is not None


async def test_a_promoted_name_stands_for_what_it_meant_when_the_evaluation_was_made(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, job: Job
) -> None:
    async with database.transaction() as session:
        await deploy(session, job)
        newer = await add_job(session, state=JobState.SUCCEEDED)
        await deploy(session, newer)
        await promotions.promote(session, "ada", "support", job.id)
    models = [{"name": "base", "model": f"job:{job.id}:base"}, {"name": "ours", "model": "support"}]
    judge = {"type": "llm", "name": "judge", "model": "support"}
    evaluation = await make(database, settings, asked(job) | {"models": models, "judges": [judge]})
    async with database.transaction() as session:
        await promotions.promote(session, "ada", "support", newer.id)
        await gates.put(session, "ada", "support", Rule(min_votes=2))
    assert [one["model"] for one in evaluation.spec["models"]] == [f"job:{job.id}:base", f"job:{job.id}"]
    assert [one["model"] for one in evaluation.spec["judges"]] == [f"job:{job.id}"]
    assert evaluation.job_id == job.id
    server.answer = lambda asked: Answer("Verdict: tie")
    await work(controller, evaluation)
    assert (await promotions.request(database, "ada", "support", job.id)).job_id == job.id  # it passes its gate
    with pytest.raises(GateNotPassed, match="no evaluation"):
        await promotions.request(database, "ada", "support", newer.id)
    for baseline, refused in ((f"job:{job.id}:base", False), ("support", True), ("nothing", True)):
        async with database.transaction() as session:
            await gates.put(session, "ada", "other", Rule(min_votes=2, baseline=baseline))
        if refused:
            with pytest.raises(GateNotPassed, match=f"compared with '{baseline}'"):
                await promotions.request(database, "ada", "other", job.id)
        else:
            await promotions.request(database, "ada", "other", job.id)


async def test_the_next_job_on_what_a_judge_preferred_is_made_once(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, job: Job
) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.body["model"] != "judge":
            return Answer(f"{asked.body['model']} says")
        return Answer(f"Verdict: {'A' if 'aligned' in sides(asked)[0] else 'B'}")

    server.answer = answer
    async with database.transaction() as session:
        await deploy(session, job)
    judge = {"type": "llm", "endpoint": {"url": server.url, "model": "judge"}}
    done = await work(controller, await make(database, settings, asked(job) | {"judges": [judge]}))
    patch = {"model": f"job:{job.id}", "name": "next"}
    made = [
        await pairs.export(database, settings, "ada", done.id, next_job=patch, idempotency_key="once")
        for _ in range(2)  # as one who has not heard the first answer
    ]
    assert [one.replayed for one in made] == [False, True]
    [next_job] = {one.job.id: one.job for one in made if one.job}.values()
    assert (next_job.cloned_from, next_job.spec["name"]) == (job.id, "next")
    assert next_job.spec["data"]["train"] == made[0].file.id == made[1].file.id
    with pytest.raises(IdempotencyConflict):
        await pairs.export(database, settings, "ada", done.id, next_job={}, idempotency_key="once")


async def test_models_that_are_not_deployed_are_deployed_and_waited_for(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, job: Job
) -> None:
    server.answer = lambda asked: Answer("here")
    evaluation = await make(database, settings, asked(job))
    async with Evaluate() as evaluate:
        deployment = None
        while deployment is None:
            await evaluate.reconcile(controller)
            async with database.reading() as session:
                deployment = await deployments.find(session, job)
    assert deployment.state is DeploymentState.DEPLOYING
    assert (await look(database, evaluation)).state is EvaluationState.RUNNING
    async with database.transaction() as session:
        await deploy(session, job)
    assert (await work(controller, evaluation)).state is EvaluationState.COMPLETED


async def test_models_that_cannot_be_deployed_end_the_evaluation_with_the_reason(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, job: Job
) -> None:
    evaluation = await make(database, settings, asked(job))
    async with database.transaction() as session:
        deployment = await deployments.want(session, job)
        await deployments.set_state(session, deployment, DeploymentState.FAILED, "The engine ran out of memory.")
    done = await work(controller, evaluation)
    assert done.state is EvaluationState.FAILED
    assert "ran out of memory" in (done.error or {})["message"]


async def test_implicit_rewards_are_those_that_the_job_measured(
    database: Database, settings: Settings, controller: Controller, server: OpenAIServer, job: Job
) -> None:
    server.answer = lambda asked: Answer("here")
    data = a_report(800).model_dump(mode="json") | {"overlap": {"held_out": 40, "shared": {}}}
    async with database.transaction() as session:
        await deploy(session, job)
        await append_event(session, job, "data.prepared", "", data=data)
        values = {"rewards/accuracies": 0.75, "rewards/margins": 0.3}
        session.add(
            Metric(job_id=job.id, number=1, attempt=1, split="held_out", step=9, values=values, created_at=utc_now())
        )
    found = await results(database, await work(controller, await make(database, settings, asked(job))))
    [reward] = found.rewards
    assert (reward.step, reward.margin, reward.accuracy.num) == (9, 0.3, 40)
    assert reward.accuracy.low < 0.75 < reward.accuracy.high
    rule = Rule(min_accuracy=0.7)
    for job_id, step, passed in ((job.id, None, True), (job.id, 9, True), (job.id, 5, False), ("job-2", None, False)):
        [shown] = check(rule, found, Promoted("aligned", job_id, step))
        assert (shown.passed, shown.found) == (passed, "0.750" if passed else "not measured")
