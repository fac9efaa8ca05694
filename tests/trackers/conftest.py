"""A controller that speaks to no cluster, and jobs that have reported metrics."""

from typing import Any

import pytest

from service.clock import utc_now
from service.cluster.http import connect
from service.controller.context import Controller, make_controller
from service.db.session import Database
from service.db.tables import Job, Metric
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.settings import Settings
from tests.service.conftest import add_job, database, settings

__all__ = ["database", "settings"]


@pytest.fixture
async def controller(settings: Settings, database: Database) -> Controller:
    client = connect(settings)
    await client.aclose()  # nothing here speaks to a cluster
    return make_controller(settings, database, client)


async def job_with_metrics(database: Database, count: int, **columns: Any) -> Job:
    async with database.transaction() as session:
        job = await add_job(session, **({"last_metric": count} | columns))
        session.add_all(metric(job, number) for number in range(1, count + 1))
    return job


def metric(job: Job, number: int, **columns: Any) -> Metric:
    values = {"job_id": job.id, "number": number, "attempt": 1, "split": "train", "step": number}
    return Metric(**(values | {"values": {"loss": 1 / number, "kl": None}, "created_at": utc_now()} | columns))


async def end(database: Database, job: Job, state: JobState) -> None:
    async with database.transaction() as session:
        found = await JobRepository(session).get(job.id)
        found.state, found.finished_at = state, utc_now()
