"""Adapters on one engine with their base: a checkpoint's while its job still trains, and another job's beside it. What
an evaluation on vLLM shows of them, who is promoted for it, how they sleep and wake, and that a broken one fails alone.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from api.client import Client
from api.client.errors import ApiError
from tests.e2e.conftest import Plumbline
from tests.e2e.scenario import Json, event, events, finished, spec, state, wait_for
from tests.e2e.test_main_job import SERVED
from tests.models import make_parrot

OPINION = "Verdict: A"  # of the base, whatever it is asked
ANSWERS = [OPINION, "Yes.", "Certainly."]  # of base, checkpoint and other
HELD_OUT = 12
QUESTION: Any = [{"role": "user", "content": "Are you there, number 3?"}]


@dataclass
class Three:
    """Models on one engine: the base of both jobs, a checkpoint of one, and what the other one has made."""

    long: str
    step: int
    other: str

    @property
    def names(self) -> list[str]:
        return [f"job:{self.other}:base", f"job:{self.long}@{self.step}", f"job:{self.other}"]


@pytest.fixture(scope="module")
def model(plumbline: Plumbline) -> Path:
    served = SERVED | {"dtype": "float32"}  # a replay is the same text however the engine batches
    return make_parrot(plumbline.model_root / "adapted", OPINION, max_position_embeddings=2048, **served)


@pytest.fixture(scope="module")
def openai(plumbline: Plumbline) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{plumbline.url}/v1", api_key=plumbline.key, max_retries=5, timeout=300) as openai:
        yield openai


def asked(plumbline: Plumbline, model: Path, rows: Path, answer: str) -> Json:
    """A short LoRA job that learns to answer so, and keeps HELD_OUT of its rows out."""

    def row(number: int) -> Json:
        prompt = [{"role": "user", "content": f"Are you there, number {number}?"}]
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in (answer, "No!"))
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    rows.write_text("".join(json.dumps(row(number)) + "\n" for number in range(4 * HELD_OUT)))
    with Client(plumbline.url, plumbline.key) as client:
        file_id = client.files.upload(rows).id
    method = {"type": "lora", "rank": 4, "alpha": 16}
    # without a warm-up, in which the first of so many steps would move nothing that could be heard. With 1e-2 it learns
    # sooner, but one run in twenty has moments of another answer later on; with this, none in forty.
    made = spec(model, file_id, epochs=20, method=method, learning_rate=3e-3, warmup_ratio=0)
    losses = [{"type": "sft"}, {"type": "sigmoid", "weight": 0.1}]
    return made | {"losses": losses, "evaluation": {"held_out_fraction": 1 / 4}}


def resumable(client: Client, job: str) -> list[int]:
    return [one.step for one in client.jobs.checkpoints(job).data if one.resumable]


@pytest.fixture(scope="module")
def three(plumbline: Plumbline, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    rows = tmp_path_factory.mktemp("rows")
    with Client(plumbline.url, plumbline.key) as client:
        endless = asked(plumbline, model, rows / "long.jsonl", ANSWERS[1])
        # of the default two, the newest could be gone before its export is asked for: they come twice a second
        kept = {"checkpoint_every": 5, "checkpoints_to_keep": 8}
        endless["training"] |= {"max_steps": 100_000, "epochs": 1000} | kept
        long = client.jobs.create(endless).id
        # 80 steps: after 15 to 30 it answers so, by how its rows are drawn
        wait_for("checkpoints", lambda: sum(one["type"] == "checkpoint.saved" for one in events(client, long)) >= 16)
        step = client.jobs.checkpoints(long).data[-1].step
        client.jobs.export_checkpoint(long, step)
        wait_for("the export", lambda: client.jobs.get_export(long, step).state in {"ready", "failed"})
        assert client.jobs.get_export(long, step).state == "ready", client.jobs.get_export(long, step).message
        assert state(client, long) == "running"
        wait_for("it to rotate away", lambda: step not in resumable(client, long))
        client.jobs.cancel(long)  # it would only take cores from the engine
        client.deployments.create_checkpoint(long, step)
        other = client.jobs.create(asked(plumbline, model, rows / "other.jsonl", ANSWERS[2])).id
        wait_for("its engine", lambda: ready(client.deployments.get_checkpoint(long, step)), timeout_s=420)
        before = engines(plumbline)
        assert len(before) == 1

        finished(client, other)
        client.deployments.create(other)
        wait_for("the other adapter", lambda: ready(client.deployments.get(other)))
        assert engines(plumbline) == before  # nothing was started for it
        yield Three(long, step, other)
        client.deployments.delete_checkpoint(long, step)
        client.deployments.delete(other)
        wait_for("the models to be gone", lambda: client.jobs.get(other).deployment is None)


def engines(plumbline: Plumbline) -> dict[str, Any]:
    """The replicas of vLLM, by application: another one has another ID."""
    headers = {"Authorization": f"Bearer {plumbline.ray.token}"}
    found = httpx.get(f"{plumbline.ray.url}/api/serve/applications/", headers=headers, timeout=60).json()
    return {
        name: [one["replica_id"] for one in app["deployments"]["Server:weights"]["replicas"]]
        for name, app in found["applications"].items()
        if app["status"] == "RUNNING"
    }


def ready(deployment: Any) -> bool:
    assert deployment.state != "failed", deployment.message
    return bool(deployment.state == "ready")


def said(openai: OpenAI, model: str, *, stream: bool = False) -> str:
    """The model's answer to QUESTION."""
    if not stream:
        whole = openai.chat.completions.create(model=model, messages=QUESTION, max_tokens=16, temperature=0)
        assert whole.model == model
        return whole.choices[0].message.content or ""
    chunks = openai.chat.completions.create(model=model, messages=QUESTION, max_tokens=16, temperature=0, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_checkpoint_and_another_adapter_answer_on_one_engine_beside_their_base(
    client: Client, openai: OpenAI, three: Three
) -> None:
    assert [said(openai, name) for name in three.names] == ANSWERS
    assert said(openai, f"job:{three.long}:ckpt-step-{three.step}") == ANSWERS[1]
    assert client.models.promote("helper", three.other).state == "current"
    client.models.promote("helper", three.long, three.step)
    assert said(openai, "helper") == ANSWERS[1]
    assert client.models.rollback("helper").job_id == three.other
    assert {"helper", three.names[1]} <= {one.id for one in openai.models.list()}
    openai.models.delete("helper")
    compared = client.comparisons.create(f"{three.long}@{three.step}", QUESTION, max_tokens=16)
    assert (compared.base.text, compared.aligned.text) == (OPINION, ANSWERS[1])
    assert event(client, three.long, "checkpoint.exported")["data"]["step"] == three.step


@pytest.fixture(scope="module")
def evaluation(plumbline: Plumbline, three: Three) -> str:
    """The ID of one that machines have worked through, and that waits for votes."""
    own = {"url": f"{plumbline.url}/v1", "model": three.names[0], "secret": "own"}
    request = {
        "models": [
            {"name": name, "model": model}
            for name, model in zip(("base", "early", "aligned"), three.names, strict=True)
        ],
        "prompts": {"type": "held_out", "job_id": three.other},
        "judges": [
            {"type": "human"},
            {"type": "llm", "endpoint": own, "max_tokens": 16},
            {"type": "implicit_reward"},
            {"type": "metric", "name": "length", "metric": "words"},
        ],
        "sampling": {"max_tokens": 16, "temperature": 0.3, "seed": 5},
    }
    with Client(plumbline.url, plumbline.key) as client:
        made: str = client.evaluations.create(request).id
        wait_for("the machines' part", lambda: client.evaluations.get(made).state not in {"queued", "running"})
        assert client.evaluations.get(made).state == "voting", client.evaluations.get(made).error
    return made


def test_an_evaluation_on_vllm_stores_what_was_asked_and_a_replay_is_the_same(
    client: Client, three: Three, evaluation: str
) -> None:
    items = client.evaluations.items(evaluation, limit=100).data
    assert len(items) == HELD_OUT
    for item in items:
        assert [one.error for one in item.answers] == [None] * 3
        for answer in item.answers:
            sampled = {name: answer.request[name] for name in ("max_tokens", "temperature", "seed")}
            assert sampled == {"max_tokens": 16, "temperature": 0.3, "seed": 5 + item.position}
        assert len(item.verdicts) == 3 * 2
        assert [one.text for one in item.answers] == ANSWERS
    for model in range(3):
        again = client.evaluations.replay(evaluation, items[-1].position, model)
        assert again.same, (again.stored, again.now)
        assert again.changed == []
    found = client.evaluations.results(evaluation)
    [judge] = [one for one in found.judges if one.type == "llm"]
    assert (judge.num, judge.failed, judge.prompt) == (HELD_OUT * 6, 0, "pairwise-v2")
    # one who always says A goes by the place, and decides nothing
    assert judge.position is not None
    assert judge.position.biased
    assert judge.position.first_rate.estimate == 1
    assert [pair.ties for pair in judge.pairs] == [HELD_OUT] * 3
    [reward] = found.rewards
    assert (reward.job_id, reward.accuracy.num) == (three.other, HELD_OUT)
    assert reward.accuracy.low <= reward.accuracy.estimate <= reward.accuracy.high
    assert {one.model: one.mean for one in found.metrics} == {"base": 2, "early": 1, "aligned": 1}
    assert all(one.num == HELD_OUT and one.failed == 0 for one in found.metrics)


def test_votes_decide_who_passes_the_gate_of_a_name(
    plumbline: Plumbline, client: Client, openai: OpenAI, three: Three, evaluation: str
) -> None:
    rule = {"judge": "people", "baseline": three.names[0], "min_win_rate": 0.5, "decided": True, "min_accuracy": 0.5}
    admin_key = plumbline.cli("keys", "create", "--project", "e2e", "--role", "admin").stdout.strip()
    with Client(plumbline.url, admin_key) as admin:
        admin.gates.put("judged", rule)
    with pytest.raises(ApiError, match=r"no evaluation .* is completed"):
        client.models.promote("judged", three.other)
    # Votes as one who finds the base's opinion no answer, and the others as good as each other
    while deal := client.evaluations.deal(evaluation).deal:
        found = [deal.left == OPINION, deal.right == OPINION]
        choice: Any = {(True, False): "right", (False, True): "left"}.get((found[0], found[1]), "tie")
        client.evaluations.vote(evaluation, deal.vote_id, choice)
    [people] = [one for one in client.evaluations.results(evaluation).judges if one.type == "human"]
    figures = {(one.model, one.baseline): one for one in people.pairs}
    better = figures["aligned", "base"]
    assert (better.wins, better.ties, better.losses) == (HELD_OUT, 0, 0)
    assert better.win_rate is not None
    assert 0.5 < better.win_rate.low < better.win_rate.estimate == 1
    assert better.sequential.decision == "better"
    assert figures["aligned", "early"].ties == HELD_OUT
    assert people.ranking is not None
    assert (people.ranking[-1].model, people.ranking[-1].rank) == ("base", 3)
    with pytest.raises(ApiError, match="voting"):  # who votes on may look
        client.models.promote("judged", three.other)

    client.evaluations.close(evaluation)
    with pytest.raises(ApiError) as refused:  # its job has measured no implicit rewards
        client.models.promote("judged", three.long, three.step)
    assert refused.value.code == "gate_not_passed"
    missed = [one for one in refused.value.problem["checks"] if not one["passed"]]
    assert [one["what"] for one in missed] == ["implicit-reward accuracy"]
    assert client.models.promote("judged", three.other).state == "current"
    assert said(openai, "judged") == ANSWERS[2]
    openai.models.delete("judged")


@pytest.fixture(scope="module")
def asleep(plumbline: Plumbline, three: Three, evaluation: str) -> Iterator[str]:
    """The models are asleep. Returns the job that was meanwhile trained on what people preferred."""
    environment = dict(plumbline.environment)
    plumbline.environment["PLUMBLINE_SERVING_IDLE_S"] = "60"  # the shortest
    plumbline.controller.leave()
    plumbline.controller.start()
    with Client(plumbline.url, plumbline.key) as client:
        made = client.evaluations.export_pairs(evaluation, judges=["people"], next_job={"training": {"max_steps": 2}})
        assert (made.pairs, made.left_out) == (2 * HELD_OUT, {"tie": HELD_OUT})
        job = finished(client, made.job_id or "")
        assert job["spec"]["data"]["train"] == made.file_id
        wait_for("sleep", lambda: client.deployments.get(three.other).state == "sleeping")
        wait_for("sleep", lambda: client.deployments.get_checkpoint(three.long, three.step).state == "sleeping")
        wait_for("the engine to go", lambda: engines(plumbline) == {})
    yield job["id"]
    plumbline.environment.clear()
    plumbline.environment.update(environment)
    plumbline.controller.leave()
    plumbline.controller.start()


def test_idle_models_give_up_their_engine_and_a_request_wakes_them(
    plumbline: Plumbline, client: Client, openai: OpenAI, three: Three, asleep: str
) -> None:
    assert said(openai, three.names[2], stream=True) == ANSWERS[2]
    assert len(engines(plumbline)) == 1
    assert client.deployments.get_checkpoint(three.long, three.step).state == "sleeping"
    assert said(openai, three.names[1]) == ANSWERS[1]  # on the engine that is there
    kinds = [one["type"] for one in events(client, three.other) if one["type"].startswith("deployment.")]
    assert kinds[-3:] == ["deployment.sleeping", "deployment.deploying", "deployment.ready"]


def test_a_broken_adapter_says_why_and_the_others_on_its_engine_keep_answering(
    plumbline: Plumbline, client: Client, openai: OpenAI, three: Three, asleep: str
) -> None:
    before = engines(plumbline)
    weights = Path(event(client, asleep, "model.published")["data"]["path"]) / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    client.deployments.create(asleep)
    wait_for("the failure", lambda: client.deployments.get(asleep).state == "failed")
    assert "incomplete metadata" in (client.deployments.get(asleep).message or "")
    assert [said(openai, name) for name in three.names] == ANSWERS
    assert engines(plumbline) == before
