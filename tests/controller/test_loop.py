import asyncio
import logging
from collections.abc import Callable

import pytest

from service.controller.context import ClusterCode, Controller
from service.controller.loop import run
from service.jobs.states import JobState
from tests.controller.conftest import FAILS, SLEEPS, look, queue, until

Make = Callable[..., Controller]


async def test_a_job_whose_driver_always_dies_fails_after_its_attempts(make: Make) -> None:
    controller = make(FAILS)
    job = await queue(controller)
    stop = asyncio.Event()
    loop = asyncio.create_task(run(controller.settings, controller.database, stop, ClusterCode(attempt=FAILS)))

    async def failed() -> bool:
        return (await look(controller, job))[0].state is JobState.FAILED

    await until(failed)
    stop.set()
    await loop
    assert (await look(controller, job))[0].num_attempts == controller.settings.max_attempts


async def test_a_cluster_that_is_away_is_waited_for(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.controller")
    controller = make(ray_url="http://127.0.0.1:9", reconcile_every_s=0.01)
    job = await queue(controller)
    stop = asyncio.Event()
    loop = asyncio.create_task(run(controller.settings, controller.database, stop))

    async def leased() -> bool:
        return (await look(controller, job))[0].state is JobState.STARTING

    await until(leased)
    await asyncio.sleep(0.2)
    stop.set()
    await loop
    told = [record.message for record in caplog.records if "does not answer" in record.message]
    assert len(told) == 2  # once by start, once by watch; not at every step


async def test_a_database_that_is_away_is_waited_for_and_stops_nothing(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = make(SLEEPS, reconcile_every_s=0.01)
    job = await queue(controller)
    healthy = controller.database.reading

    def refused(**_: object) -> object:
        raise ConnectionRefusedError("the database does not answer")

    monkeypatch.setattr(controller.database, "reading", refused)
    stop = asyncio.Event()
    loop = asyncio.create_task(run(controller.settings, controller.database, stop, ClusterCode(attempt=SLEEPS)))

    async def told() -> bool:
        return any("the database does not answer" in record.message for record in caplog.records)

    await until(told)
    monkeypatch.setattr(controller.database, "reading", healthy)

    async def started() -> bool:
        return (await look(controller, job))[0].state is JobState.STARTING

    await until(started)
    stop.set()
    await loop
