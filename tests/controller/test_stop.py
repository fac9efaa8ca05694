from collections.abc import Callable

from service.controller import start, stop
from service.controller.context import Controller
from service.jobs import lifecycle
from service.jobs import service as jobs
from service.jobs.attempts import start_attempt
from service.jobs.repository import JobRepository
from service.jobs.states import AttemptState, JobState
from tests.controller.conftest import SLEEPS, SUCCEEDS, look, queue, ray_job, start_and_speak, until

Make = Callable[..., Controller]

HANGS_ON = "python -c 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'"


async def _paused(controller: Controller, job_id: str) -> None:
    await lifecycle.pause(controller.database, "ada", job_id)

    async def reached() -> bool:
        await stop.reconcile(controller)
        async with controller.database.reading() as session:
            return (await JobRepository(session).get(job_id)).state is JobState.PAUSED

    await until(reached)


async def test_a_paused_driver_that_does_not_listen_is_killed_and_followed_by_another(make: Make) -> None:
    controller = make(HANGS_ON, pause_grace_s=0.5)
    job = await queue(controller)
    await start_and_speak(controller, job)
    await _paused(controller, job.id)
    left = await ray_job(controller, job)
    assert left is not None
    assert left.status.terminal
    await lifecycle.resume(controller.database, "ada", job.id)
    await start_and_speak(controller, job)
    assert (await look(controller, job))[0].num_attempts == 2
    await _cancelled(controller, job.id)


async def test_a_job_that_is_cancelled_while_it_pauses_is_cancelled(make: Make) -> None:
    controller = make(SLEEPS, pause_grace_s=600)
    job = await queue(controller)
    await start_and_speak(controller, job)
    await lifecycle.pause(controller.database, "ada", job.id)
    await stop.reconcile(controller)
    assert (await look(controller, job))[0].state is JobState.PAUSING  # it has ten minutes
    await _cancelled(controller, job.id)


async def _cancelled(controller: Controller, job_id: str) -> None:
    await jobs.cancel(controller.database, "ada", job_id)

    async def reached() -> bool:
        await stop.reconcile(controller)
        async with controller.database.reading() as session:
            return (await JobRepository(session).get(job_id)).state is JobState.CANCELLED

    await until(reached)


async def test_a_driver_that_does_not_listen_is_killed(make: Make) -> None:
    controller = make(HANGS_ON)
    job = await queue(controller)
    await start_and_speak(controller, job)
    await _cancelled(controller, job.id)
    _, attempt = await look(controller, job)
    assert attempt is not None
    assert attempt.state is AttemptState.CANCELLED
    left = await ray_job(controller, job)
    assert left is not None
    assert left.status.terminal


async def test_a_driver_that_leaves_by_itself_is_not_stopped(make: Make) -> None:
    controller = make(SUCCEEDS, cancel_grace_s=600)
    job = await queue(controller)
    await start_and_speak(controller, job)
    await _cancelled(controller, job.id)
    left = await ray_job(controller, job)
    assert left is not None
    assert left.status == "SUCCEEDED"


async def test_a_driver_that_has_not_spoken_is_stopped_at_once(make: Make) -> None:
    controller = make(SLEEPS, cancel_grace_s=600)
    job = await queue(controller)
    await start.reconcile(controller)
    await _cancelled(controller, job.id)
    left = await ray_job(controller, job)
    assert left is not None
    assert left.status == "STOPPED"


async def test_an_attempt_that_never_reached_the_cluster_is_done_with(make: Make) -> None:
    controller = make()
    job = await queue(controller)
    async with controller.database.transaction() as session:
        await start_attempt(session, await JobRepository(session).get(job.id))
    await _cancelled(controller, job.id)
    await start.reconcile(controller)
    assert await ray_job(controller, job) is None


async def test_a_driver_without_a_node_keeps_nobody_waiting(make: Make) -> None:
    controller = make()
    job = await queue(controller)
    async with controller.database.transaction() as session:
        attempt = await start_attempt(session, await JobRepository(session).get(job.id))
    await controller.jobs.submit(attempt.id, SLEEPS, env_vars={}, label_selector={"pool": "in(nowhere)"})
    await _cancelled(controller, job.id)
