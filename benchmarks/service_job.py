"""A job as the benchmarks of the whole service see it: followed to its end, and taken apart by its own events."""

import time
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import httpx

from api.cli.local_ray import LocalRay
from api.client import Client
from api.views import EventView
from service.jobs.states import JobState
from service.spec import Stage

Json = dict[str, Any]
_POLL_S = 0.2
_OF_A_JOB = (
    "Scorer",
    "SoloTrainer",
    "RayTrainWorker",
    "TrainController",
    "Mailbox",
)  # the actors that end with their job


@dataclass(frozen=True)
class Record:
    """A job that has ended. Everything is in seconds.

    `shards`: what the reference stage's progress was at its first and at its last shard: time, and pairs scored.
    """

    job: Json
    events: list[Json]
    metrics: list[Json]
    shards: tuple[tuple[datetime, int], ...]

    @property
    def wall_s(self) -> float:
        """POST to the published model."""
        return self.since_post(self.job["finished_at"])

    @property
    def start_up_s(self) -> float:
        """POST until the training workers are ready for their first step: processes, imports, rows, model."""
        return self.since_post(self._first("train.started")["created_at"])

    @property
    def first_step_s(self) -> float:
        """POST until the first step is done."""
        return self.since_post(self.metrics[0]["created_at"])

    @cached_property
    def stages(self) -> dict[str, float]:
        """Each stage with the start of its processes."""
        return {e["stage"]: e["data"]["seconds"] for e in self.events if e["type"] == "stage.completed"}

    @property
    def scoring_s(self) -> float:
        """The reference pass without the start of its scorers: the rate from the first shard to the last, for all
        pairs. 0 where nothing was scored."""
        scored: int = self.planned["to_score"]
        if not scored:
            return 0.0
        (first_at, first), (last_at, last) = self.shards[0], self.shards[-1]
        if last == first:
            raise SystemExit(f"{scored} pairs were scored too quickly to be timed: take more, or a larger model")
        return (last_at - first_at).total_seconds() * scored / (last - first)

    @property
    def steps_s(self) -> float:
        """The optimizer steps alone, without waiting for scores."""
        return sum(m["values"]["tokens"] / m["values"]["tokens_per_s"] for m in self.metrics)

    @property
    def waited_s(self) -> float:
        return sum(float(m["values"]["policy_wait_s"]) for m in self.metrics)

    @property
    def planned(self) -> Json:
        """`pairs`, `hits`, `to_score`."""
        found: Json = self._first("reference.planned")["data"]
        return found

    def since_post(self, at: str) -> float:
        return (datetime.fromisoformat(at) - datetime.fromisoformat(self.job["created_at"])).total_seconds()

    def _first(self, kind: str) -> Json:
        return next(event for event in self.events if event["type"] == kind)


def follow(client: Client, job_id: str, *, until_scored: bool = False) -> Record:
    """Wait for the job's end. SystemExit with its error if it did not succeed.

    until_scored: cancel it when its reference stage is through, and take that for its success.
    """
    shards: dict[int, datetime] = {}
    for news in client.jobs.events(job_id):
        if isinstance(news, EventView):
            if until_scored and (news.type, news.stage) == ("stage.completed", Stage.REFERENCE):
                client.jobs.cancel(job_id)
        elif (at := news.progress.get(Stage.REFERENCE)) and at.done:
            shards.setdefault(at.done, at.updated_at)
    job = client.jobs.get(job_id)
    if job.state is not (JobState.CANCELLED if until_scored else JobState.SUCCEEDED):
        raise SystemExit(f"the job {job.state}: {job.error}")
    events = [event.model_dump(mode="json") for event in client.jobs.list_events(job_id, limit=1000).data]
    metrics = [metric.model_dump(mode="json") for metric in client.jobs.list_metrics(job_id, split="train").data]
    ordered = tuple((when, done) for done, when in sorted(shards.items()))
    return Record(job.model_dump(mode="json"), events, metrics, ordered)


def scorers_started(ray: LocalRay) -> int:
    """How many scorers there have been since Ray started, living and dead."""
    return sum(name == "Scorer" for name, _ in _actors(ray))


def wait_until_free(ray: LocalRay, timeout_s: float = 60) -> None:
    """Return when no actor of an ended job is left to take a core from the next one."""
    deadline = time.monotonic() + timeout_s
    while living := [name for name, state in _actors(ray) if name in _OF_A_JOB and state != "DEAD"]:
        if time.monotonic() > deadline:
            raise SystemExit(f"actors outlived their job: {', '.join(living)}")
        time.sleep(_POLL_S)


def _actors(ray: LocalRay) -> list[tuple[str, str]]:
    """Class and state of every actor since Ray started."""
    response = httpx.get(
        f"{ray.url}/api/v0/actors",
        params={"limit": 1000, "detail": True},
        headers={"Authorization": f"Bearer {ray.token}"},
        timeout=30,
        trust_env=False,
    )
    actors = response.raise_for_status().json()["data"]["result"]["result"]
    return [(actor["class_name"].rpartition(".")[2], actor["state"]) for actor in actors]
