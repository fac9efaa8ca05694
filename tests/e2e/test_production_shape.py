"""The production shape: what is deployed on Kubernetes, on one machine, and a rolling restart of each of its parts."""

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from api.client import Client
from api.client.sse import FrameParser
from api.views import EventView, MetricView
from service.archive.manifest import NAME, Manifest, first_difference
from service.doctor.examination import CHECKS
from service.spec.pools import Pool
from tests.e2e.production import BUCKET, LEASE_S, Api, Production, production
from tests.e2e.scenario import (
    TIMEOUT_S,
    Json,
    event,
    events,
    finished,
    reached,
    spec,
    state,
    subset,
    wait_for,
)
from tests.e2e.test_main_job import SERVED
from tests.models import make_model

STEPS = 100
ASKED = ("", ":base")  # a job's model and its base, by the end of the name
RESTARTS_S = 160  # how long the second job has to train, so that every part is restarted meanwhile


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    with production(tmp_path_factory.mktemp("production"), tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.fixture(scope="module")
def model(shape: Production) -> Path:
    return make_model(shape.model_root / "small", max_position_embeddings=1024, **SERVED)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return subset(tmp_path_factory.mktemp("data") / "pairs.jsonl.gz", 80)


@pytest.fixture(scope="module")
def file_id(shape: Production, rows: Path) -> str:
    with shape.client(shape.apis[0].url) as client:
        found: str = client.files.upload(rows).id
        return found


@pytest.fixture(scope="module")
def first_job(shape: Production, model: Path, file_id: str) -> Json:
    """Made through the other API than its data. Its model and the base of it answer questions."""
    with shape.client(shape.apis[1].url) as client:
        adapter = {"type": "lora", "rank": 4, "alpha": 16}  # on one engine with its base
        asked = spec(model, file_id, max_steps=STEPS, epochs=100, method=adapter) | {"serve": True}
        job_id = client.jobs.create(asked).id
        wait_for("the engine", lambda: served(client, job_id))
        return finished(client, job_id)


def served(client: Client, job_id: str) -> bool:
    deployment = client.jobs.get(job_id).deployment
    assert deployment is None or deployment.state != "failed", deployment
    return deployment is not None and deployment.state == "ready"


def test_the_doctor_says_all_is_well(shape: Production) -> None:
    said = {one["check"]: one for one in map(json.loads, shape.run("doctor", "--json").stdout.splitlines())}
    assert set(said) == set(CHECKS)
    assert {name: one["message"] for name, one in said.items() if one["verdict"] == "failed"} == {}
    both = f"s3://{BUCKET}/files and s3://{BUCKET}/models"
    assert said["buckets"]["message"] == f"{both} can be written, read, listed and cleared."
    assert said["attempts"]["message"].endswith(f"reaches the API, and can write {both}.")


def test_both_apis_tell_the_same_of_a_job_and_its_model_is_in_the_bucket(
    shape: Production, first_job: Json, tmp_path: Path
) -> None:
    told = []
    for api in shape.apis:
        with shape.client(api.url) as client:
            told.append([one.model_dump() for one in client.jobs.events(first_job["id"])])
    assert told[0] == told[1]
    in_the_bucket(shape, first_job["id"], tmp_path)


def test_a_rolling_restart_of_each_part_loses_nothing_of_a_job_that_runs(
    shape: Production, first_job: Json, model: Path, file_id: str, rows: Path, tmp_path: Path
) -> None:
    steps = math.ceil(RESTARTS_S / seconds_a_step(shape, first_job["id"]))
    asked = spec(model, file_id, max_steps=steps, epochs=1000, checkpoint_every=steps // 8 + 1)
    with shape.client() as client, ThreadPoolExecutor() as threads:
        job_id = client.jobs.create(asked).id
        watched, replaced = Watched(shape, job_id), threading.Event()
        watching = [threads.submit(watch) for watch in (watched.events, watched.metrics, watched.attempts)]
        try:
            reached(client, job_id, 3)
            for api in shape.apis:
                replace_api(shape, api, job_id, threads)
            for _ in shape.controllers:
                replace_leader(shape)
            shape.postgres.stop()
            shape.postgres.start()
            shape.s3.stop()
            shape.s3.start()
            assert state(client, job_id) == "running"
            assert client.files.content(file_id) == rows.read_bytes()
            said = answers(shape, first_job)
            head = shape.ray.head()
            shape.redis.stop()
            shape.redis.start()
            shape.ray.restart_head(head)  # it ends when it loses its Redis
            shape.ray.replace_head()
            shape.ray.replace(Pool.CONTROL)
            wait_for("the next attempt's training", lambda: times(client, job_id, "train.started") == 2)
            for pool in (Pool.POLICY, Pool.REFERENCE):
                shape.ray.replace(pool)
            assert state(client, job_id) == "running"
            assert answers(shape, first_job) == said  # the engine is the same, behind a new head
            finished(client, job_id)  # which leaves the cores to the engine that comes up
            asking = threads.submit(ask_until, replaced, shape, first_job)
            shape.ray.replace(Pool.SERVING)
            replaced.set()
            assert set(asking.result()) == set(zip(ASKED, said, strict=True))
        finally:
            replaced.set()
            watched.over.set()
        for watch in watching:
            watch.result(timeout=TIMEOUT_S)
        job = client.jobs.get(job_id)
        stored = [one.model_dump() for one in client.jobs.list_events(job_id, limit=1000).data]
    assert (job.attempts, watched.most_alive) == (2, 1)  # its driver's node was replaced
    assert sum(one["type"] == "train.moved" for one in stored) == 1
    assert [one["number"] for one in stored] == list(range(1, len(stored) + 1))
    assert watched.events_seen == stored[: len(watched.events_seen)]
    assert "job.succeeded" in [one["type"] for one in watched.events_seen]
    assert [one.number for one in watched.metrics_seen] == list(range(1, len(watched.metrics_seen) + 1))
    assert [one.step for one in watched.metrics_seen if one.split == "train"] == list(range(1, steps + 1))
    in_the_bucket(shape, job_id, tmp_path)


def ask_until(over: threading.Event, shape: Production, job: Json) -> list[tuple[str, str]]:
    """Which of the two was asked and what it answered, all the time; raises if a question is not answered."""
    told = []
    for which in cycle(ASKED):
        told.append((which, answer(shape, job, which)))
        if over.wait(3):  # vLLM spins for a second after each, on cores that the new engine needs
            break
    return told


def answers(shape: Production, job: Json) -> tuple[str, ...]:
    """Of the job's model and of its base, to the same question."""
    return tuple(answer(shape, job, which) for which in ASKED)


def answer(shape: Production, job: Json, which: str) -> str:
    question: Any = [{"role": "user", "content": "Are you there?"}]
    with OpenAI(base_url=f"{shape.url}/v1", api_key=shape.key, max_retries=0, timeout=60) as openai:
        name = f"job:{job['id']}{which}"
        told = openai.chat.completions.create(model=name, messages=question, max_tokens=8, temperature=0)
    return told.choices[0].message.content or ""


class Watched:
    """A job as three threads see it: its two streams, over whichever API the balancer chooses, and Ray's drivers."""

    def __init__(self, shape: Production, job_id: str) -> None:
        self._shape = shape
        self._job_id = job_id
        self.over = threading.Event()
        self.events_seen: list[Json] = []
        self.metrics_seen: list[MetricView] = []
        self.most_alive = 0

    def events(self) -> None:
        with self._shape.client() as client:
            for one in client.jobs.events(self._job_id):
                if isinstance(one, EventView):
                    self.events_seen.append(one.model_dump())

    def metrics(self) -> None:
        with self._shape.client() as client:
            self.metrics_seen += client.jobs.metrics(self._job_id)

    def attempts(self) -> None:
        """How many attempts Ray ran at one time, at most."""
        ray = self._shape.ray
        headers = {"Authorization": f"Bearer {ray.token}"}
        with httpx.Client(base_url=ray.url, headers=headers, timeout=30, trust_env=False) as http:
            while not self.over.wait(0.5):
                try:
                    listed = http.get("/api/jobs/")
                except httpx.TransportError:  # the head is replaced
                    continue
                if not listed.is_success:
                    continue
                drivers = [one for one in listed.json() if one["status"] in {"PENDING", "RUNNING"}]
                of_the_job = [one for one in drivers if str(one["submission_id"]).startswith(self._job_id)]
                self.most_alive = max(self.most_alive, len(of_the_job))


def replace_api(shape: Production, api: Api, job_id: str, threads: ThreadPoolExecutor) -> None:
    """Its streams are told to reconnect, and end before it does."""
    headers = {"Authorization": f"Bearer {shape.key}", "Accept": "text/event-stream"}
    with (
        httpx.Client(base_url=f"{api.url}/v1/jobs/{job_id}", headers=headers, timeout=60, trust_env=False) as http,
        http.stream("GET", "/events") as events,
        http.stream("GET", "/metrics") as curve,
    ):
        leaving = threads.submit(api.leave)
        assert [last_frame(events), last_frame(curve)] == ["reconnect", "reconnect"]
        leaving.result()
    api.start_ready()


def last_frame(stream: httpx.Response) -> str:
    """Of a stream that is not cut off."""
    assert stream.is_success
    parser = FrameParser()
    return [frame.event for line in stream.iter_lines() if (frame := parser.feed(line))][-1]


def replace_leader(shape: Production) -> None:
    leader = wait_for("a leader", shape.leader)
    leader.leave()
    wait_for("another leader", lambda: shape.leader() not in (None, leader), timeout_s=LEASE_S / 2)
    leader.start()


def times(client: Client, job_id: str, kind: str) -> int:
    """How many events of this type there are."""
    return sum(one["type"] == kind for one in events(client, job_id))


def seconds_a_step(shape: Production, job_id: str) -> float:
    """Without the start of the processes that train."""
    with shape.client() as client:
        told = {(one["type"], one["stage"]): one["created_at"] for one in events(client, job_id)}
    begun, ended = (told[kind, "train"] for kind in ("train.started", "stage.completed"))
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() / STEPS


def in_the_bucket(shape: Production, job_id: str, target: Path) -> None:
    """The model is there, each of its files as it was published."""
    with shape.client() as client:
        wait_for(
            "the copy of the model", lambda: any(one["type"] == "model.archived" for one in events(client, job_id))
        )
        published = Path(event(client, job_id, "model.published")["data"]["path"])
    shape.s3.fetch(f"models/{job_id}/", target)
    manifest = Manifest.model_validate_json((target / NAME).read_bytes())
    assert {"config.json", "adapter_config.json"} & {file.path for file in manifest.files}
    assert first_difference(manifest, target) is None
    assert first_difference(manifest, published) is None
