"""Fills a database for `scale.py`: jobs that wait, run and have ended, of many projects and shapes."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import insert, text

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Attempt, Job
from service.ids import new_id
from service.jobs.states import AttemptState, JobState
from service.spec import AlignmentJob

PROJECTS = 20
GPUS_PER_NODE = 8
STEPS = 1000
_AT_ONCE = 2000
_WORKERS = (8, 1, 2, 8, 4, 16, 8, 32, 8, 64)  # of jobs that wait, each on a GPU
_DAY_S = 86_400


async def fill(database: Database, *, running: int, queued: int, ended: int) -> list[str]:
    """`running` jobs of a node each, of which nothing has been heard for a moment; `ended` ones of the last day; and
    `queued` ones, the newest. Returns the IDs of the running attempts."""
    now = utc_now()
    jobs = [*_ended(ended, now), *_running(running, now), *_queued(queued, now)]
    for id, row in zip(sorted(new_id("job") for _ in jobs), jobs, strict=True):
        row["id"] = id
    attempts = [_attempt(row) for row in jobs if row["num_attempts"]]
    async with database.transaction() as session:
        for table, rows in ((Job, jobs), (Attempt, attempts)):
            for place in range(0, len(rows), _AT_ONCE):
                await session.execute(insert(table), rows[place : place + _AT_ONCE])
    async with database.transaction() as session:
        await session.execute(text("ANALYZE"))
    return [row["id"] for row in attempts if row["state"] is AttemptState.RUNNING]


def _ended(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    for number in range(count):
        finished = now - timedelta(seconds=_DAY_S * (count - number) / count)
        begun = finished - timedelta(seconds=1800 + 60 * (number % 60))
        times = {"created_at": begun, "started_at": begun, "finished_at": finished}
        yield _job(number, 8, JobState.SUCCEEDED) | times | {"num_attempts": 1}


def _running(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    for number in range(count):
        begun = now - timedelta(seconds=600 + number)
        done = 100 + 700 * number // max(1, count)
        training = {"started_at": begun.isoformat(), "from_done": 0, "from_at": begun.isoformat()}
        training |= {"done": done, "total": STEPS, "unit": "steps", "updated_at": now.isoformat()}
        told: dict[str, Any] = {"stage": "train", "progress": {"train": training}, "last_metric": done}
        told |= {"created_at": begun, "started_at": begun, "num_attempts": 1}
        yield _job(number, GPUS_PER_NODE, JobState.RUNNING) | told


def _queued(count: int, now: datetime) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield _job(number, _WORKERS[number % len(_WORKERS)], JobState.QUEUED) | {"created_at": now}


def _job(number: int, workers: int, state: JobState) -> dict[str, Any]:
    return {
        "project_id": f"team-{number % PROJECTS}",
        "body_sha256": "0" * 64,
        "spec": _spec(workers, number % 50),
        "state": state,
        "progress": {},
        "num_attempts": 0,
        "last_event": 0,
        "last_metric": 0,
        "gpus": float(workers + 1),
        "started_at": None,
        "finished_at": None,
        "stage": None,
        "size": {"parameters": 8 * 10**9, "rows": 20_000, "bytes": 10**8 + 10**6 * (number % 50)},
    }


@lru_cache
def _spec(workers: int, seed: int) -> dict[str, Any]:
    """Training workers with a GPU each, and one scorer."""
    body = {
        "model": "/models/tiny",
        "data": {"train": "file-" + "0" * 21},
        "training": {"seed": seed},
        "resources": {"policy": {"workers": workers, "gpus_per_worker": 1}, "reference": {"gpus_per_worker": 1}},
        "serve": False,
    }
    return AlignmentJob.model_validate(body).model_dump(mode="json")


def _attempt(job: dict[str, Any]) -> dict[str, Any]:
    running = job["state"] is JobState.RUNNING
    return {
        "id": f"{job['id']}-1",
        "job_id": job["id"],
        "number": 1,
        "state": AttemptState.RUNNING if running else AttemptState.SUCCEEDED,
        "last_seq": 0,
        "created_at": job["created_at"],
        "heartbeat_at": utc_now(),
        "finished_at": job["finished_at"],
    }
