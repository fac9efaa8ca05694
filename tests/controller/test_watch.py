import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from sqlalchemy import update

from service.clock import utc_now
from service.controller import start
from service.controller.context import Controller
from service.controller.watch import OUTCOME_GRACE_S, Watch
from service.db.tables import Attempt, Job
from service.jobs.attempts import start_attempt
from service.jobs.repository import JobRepository
from service.jobs.states import AttemptState, JobState
from tests.controller.conftest import FAILS, SLEEPS, SUCCEEDS, look, queue, ray_job, speak, start_and_speak, until

Make = Callable[..., Controller]


@pytest.fixture
async def api() -> AsyncIterator[str]:
    """Something that answers 200 to everything: all that the watcher wants to know of an API."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _grow_silent(controller: Controller, job: Job, seconds: float) -> None:
    then = utc_now() - timedelta(seconds=seconds)
    async with controller.database.transaction() as session:
        await session.execute(
            update(Attempt).where(Attempt.job_id == job.id).values(created_at=then, heartbeat_at=then)
        )


async def _pass_until(controller: Controller, job: Job, *states: JobState) -> None:
    watch = Watch()

    async def reached() -> bool:
        await watch.reconcile(controller)
        return (await look(controller, job))[0].state in states

    await until(reached)


async def test_a_driver_that_ends_without_a_word_fails_the_attempt_and_queues_the_job_again(make: Make) -> None:
    controller = make(FAILS)
    job = await queue(controller)
    await start.reconcile(controller)
    await _pass_until(controller, job, JobState.QUEUED)
    _, attempt = await look(controller, job)
    assert attempt is not None
    assert attempt.state is AttemptState.FAILED
    assert attempt.failure is not None
    assert attempt.failure["code"] == "interrupted"
    assert "exit code 3" in attempt.failure["message"]
    assert "about to fail" in attempt.failure["log_tail"]


async def test_the_last_attempt_that_is_lost_fails_the_job(make: Make) -> None:
    controller = make(SUCCEEDS, max_attempts=1)
    job = await queue(controller)
    await start.reconcile(controller)
    await _pass_until(controller, job, JobState.FAILED)
    stored, _ = await look(controller, job)
    assert stored.error is not None
    assert stored.error["code"] == "interrupted"


async def test_a_running_attempt_that_the_cluster_does_not_know_is_lost(make: Make) -> None:
    controller = make()
    job = await queue(controller)
    async with controller.database.transaction() as session:
        await start_attempt(session, await JobRepository(session).get(job.id))
    await speak(controller, job)
    await _pass_until(controller, job, JobState.QUEUED)
    _, attempt = await look(controller, job)
    assert attempt is not None
    assert attempt.failure is not None
    assert "started anew" in attempt.failure["message"]


async def test_an_ended_driver_has_a_grace_for_its_last_word(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = make(SUCCEEDS)
    job = await queue(controller)
    await start.reconcile(controller)

    async def ended() -> bool:
        found = await ray_job(controller, job)
        return found is not None and found.status.terminal

    await until(ended)
    now = 1000.0
    monkeypatch.setattr("service.controller.watch.time.monotonic", lambda: now)
    watch = Watch()
    await watch.reconcile(controller)
    now += OUTCOME_GRACE_S - 0.1
    await watch.reconcile(controller)
    assert (await look(controller, job))[0].state is JobState.STARTING
    now += 0.2
    await watch.reconcile(controller)
    assert (await look(controller, job))[0].state is JobState.QUEUED


async def test_a_silent_attempt_is_stopped_when_the_api_is_there(make: Make, api: str) -> None:
    controller = make(SLEEPS, api_url=api, heartbeat_timeout_s=1)
    job = await queue(controller)
    await start_and_speak(controller, job)
    await _grow_silent(controller, job, 60)
    await _pass_until(controller, job, JobState.QUEUED)
    _, attempt = await look(controller, job)
    assert attempt is not None
    assert attempt.failure is not None
    assert attempt.failure["code"] == "heartbeat_lost"

    async def stopped() -> bool:
        found = await ray_job(controller, job)
        return found is not None and found.status.terminal

    await until(stopped)


async def test_silence_does_not_count_while_the_api_is_away(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = make(SLEEPS, heartbeat_timeout_s=1)
    job = await queue(controller)
    await start_and_speak(controller, job)
    await _grow_silent(controller, job, 60)
    now = 1000.0
    monkeypatch.setattr("service.controller.watch.time.monotonic", lambda: now)
    watch = Watch()
    for _ in range(3):
        await watch.reconcile(controller)
        now += 10
    assert (await look(controller, job))[0].state is JobState.RUNNING


async def test_an_attempt_that_never_speaks_fails_with_what_stood_in_its_way(make: Make, api: str) -> None:
    controller = make(SLEEPS, api_url=api, start_timeout_s=1)
    job = await queue(controller)
    await start.reconcile(controller)

    async def running() -> bool:
        found = await ray_job(controller, job)
        return found is not None and found.status == "RUNNING"

    await until(running)
    await _grow_silent(controller, job, 60)
    await _pass_until(controller, job, JobState.QUEUED)
    _, attempt = await look(controller, job)
    assert attempt is not None
    assert attempt.failure is not None
    assert attempt.failure["code"] == "start_timeout"
    assert api in attempt.failure["message"]
