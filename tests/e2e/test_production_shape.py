"""The production shape: what is deployed on Kubernetes, on one machine, and a rolling restart of each of its parts."""

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from api.client.sse import FrameParser
from api.views import EventView, MetricView
from service.archive.manifest import NAME, Manifest, first_difference
from service.doctor.examination import CHECKS
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
from tests.models import make_model

STEPS = 100
RESTARTS_S = 90  # how long the second job has to train, so that every part is restarted meanwhile


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    with production(tmp_path_factory.mktemp("production"), tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.fixture(scope="module")
def model(shape: Production) -> Path:
    return make_model(shape.model_root / "small")


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
    """Made through the other API than its data."""
    with shape.client(shape.apis[1].url) as client:
        return finished(client, client.jobs.create(spec(model, file_id, max_steps=STEPS, epochs=100)).id)


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
        watched = Watched(shape, job_id)
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
            finished(client, job_id)
        finally:
            watched.over.set()
        for watch in watching:
            watch.result(timeout=TIMEOUT_S)
        job = client.jobs.get(job_id)
        stored = [one.model_dump() for one in client.jobs.list_events(job_id, limit=1000).data]
    assert (job.attempts, watched.most_alive) == (1, 1)
    assert [one["number"] for one in stored] == list(range(1, len(stored) + 1))
    assert watched.events_seen == stored[: len(watched.events_seen)]
    assert "job.succeeded" in [one["type"] for one in watched.events_seen]
    assert [one.number for one in watched.metrics_seen] == list(range(1, len(watched.metrics_seen) + 1))
    assert [one.step for one in watched.metrics_seen if one.split == "train"] == list(range(1, steps + 1))
    in_the_bucket(shape, job_id, tmp_path)


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
                drivers = [one for one in http.get("/api/jobs/").json() if one["status"] in {"PENDING", "RUNNING"}]
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
    assert "config.json" in [file.path for file in manifest.files]
    assert first_difference(manifest, target) is None
    assert first_difference(manifest, published) is None
