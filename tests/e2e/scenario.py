"""What the end-to-end scenarios share: small models, real human preference pairs, and ways to wait and to look."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from api.cli.local_ray import LocalRay
from api.client import Client
from api.client.jobs import Split

Json = dict[str, Any]

HH = Path(__file__).parents[1] / "data" / "hh_rlhf_harmless_base_test.jsonl.gz"
TIMEOUT_S = 300


def wait_for(what: str, look: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.2)
    return found


def spec(model: Path, file_id: str, **training: Any) -> Json:
    return {
        "model": str(model),
        "data": {"train": file_id, "max_length": 128, "max_bad_rows": 4},
        "training": {"batch_size": 8, "learning_rate": 1e-3, "precision": "float32"} | training,
        "serve": False,
    }


def state(client: Client, job_id: str) -> str:
    return client.jobs.get(job_id).state


def finished(client: Client, job_id: str) -> Json:
    """The job, when it has ended. Fails with its error if it did not succeed."""
    job = wait_for("the end of the job", lambda: (j := client.jobs.get(job_id)).finished_at and j)
    assert job.state == "succeeded", job.error
    found: Json = job.model_dump(mode="json")
    return found


def events(client: Client, job_id: str) -> list[Json]:
    return [one.model_dump(mode="json") for one in client.jobs.list_events(job_id, limit=1000).data]


def event(client: Client, job_id: str, kind: str) -> Json:
    """The last event of this type."""
    return [one for one in events(client, job_id) if one["type"] == kind][-1]


def metrics(client: Client, job_id: str, split: Split = "train") -> list[Json]:
    return [one.model_dump(mode="json") for one in client.jobs.list_metrics(job_id, split=split).data]


def reached(client: Client, job_id: str, step: int) -> None:
    """Wait until the job has trained `step` steps and still goes on."""
    wait_for(f"step {step}", lambda: any(m["step"] >= step for m in metrics(client, job_id)))
    assert state(client, job_id) == "running"


def living_nodes(ray: LocalRay) -> dict[str, str]:
    """The pool that each is labelled with, by ID."""
    return {node["node_id"]: node["labels"]["pool"] for node in _listed(ray, "nodes") if node["state"] == "ALIVE"}


def drain(ray: LocalRay, node_id: str) -> None:
    """As a pod does that is to stop."""
    asked = "drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message test --deadline-remaining-seconds 300"
    command = [Path(sys.executable).with_name("ray"), *asked.split(), "--address", ray.address, "--node-id", node_id]
    subprocess.run(command, env=os.environ | ray.environment, check=True, capture_output=True)


def living_actors(ray: LocalRay) -> list[Json]:
    """Every actor of any job, but for the ones of Serve, which belong to no attempt."""
    actors = _listed(ray, "actors")
    attempt_actors = {"Scorer", "SoloTrainer", "RayTrainWorker", "TrainController", "Mailbox"}
    return [a for a in actors if a["state"] != "DEAD" and a["class_name"].split(".")[-1] in attempt_actors]


def scorers_so_far(ray: LocalRay) -> set[str]:
    """The ID of every scorer that a job started, also of those that have left."""
    return {one["actor_id"] for one in _listed(ray, "actors") if one["class_name"].split(".")[-1] == "Scorer"}


def _listed(ray: LocalRay, what: str) -> list[Json]:
    response = httpx.get(
        f"{ray.url}/api/v0/{what}",
        params={"limit": 1000, "detail": True},
        headers={"Authorization": f"Bearer {ray.token}"},
        timeout=30,
    )
    found: list[Json] = response.raise_for_status().json()["data"]["result"]["result"]
    return found


def subset(target: Path, rows: int) -> Path:
    """The first usable rows of the real file, compressed as it is."""
    with gzip.open(HH, "rt") as lines:
        chosen = [line for line, _ in zip(lines, range(rows), strict=False)]
    assert all(json.loads(line)["chosen"].startswith("\n\nHuman:") for line in chosen)
    with gzip.open(target, "wt") as out:
        out.writelines(chosen)
    return target
