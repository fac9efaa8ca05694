from collections.abc import Callable

from service.cluster.jobs import RayJobStatus
from service.controller import start
from service.controller.context import Controller
from service.jobs.attempts import start_attempt
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.jobs.tokens import attempt_token
from tests.controller.conftest import look, queue, ray_job, until

Make = Callable[..., Controller]


async def test_the_oldest_job_starts_and_the_next_waits_for_room(make: Make) -> None:
    controller = make(max_running_jobs=1)
    first, second = await queue(controller), await queue(controller)
    for _ in range(2):
        await start.reconcile(controller)
    assert (await look(controller, first))[0].state is JobState.STARTING
    assert (await look(controller, second))[0].state is JobState.QUEUED


async def test_with_more_room_two_jobs_start_at_once(make: Make) -> None:
    controller = make(max_running_jobs=2)
    jobs = [await queue(controller) for _ in range(3)]
    await start.reconcile(controller)
    states = [(await look(controller, job))[0].state for job in jobs]
    assert states == [JobState.STARTING, JobState.STARTING, JobState.QUEUED]


async def test_an_attempt_that_was_leased_before_a_crash_is_submitted(make: Make) -> None:
    controller = make()
    job = await queue(controller)
    async with controller.database.transaction() as session:
        await start_attempt(session, await JobRepository(session).get(job.id))
    assert await ray_job(controller, job) is None
    await start.reconcile(controller)
    assert await ray_job(controller, job) is not None
    assert (await look(controller, job))[0].num_attempts == 1


async def test_a_submitted_attempt_is_not_submitted_again(make: Make) -> None:
    controller = make()
    job = await queue(controller)
    for _ in range(3):
        await start.reconcile(controller)
    stored, attempt = await look(controller, job)
    assert stored.num_attempts == 1
    assert attempt is not None
    assert attempt.id == f"{job.id}-1"


async def test_the_driver_gets_its_address_its_id_and_its_token(make: Make) -> None:
    names = '("API_URL", "ATTEMPT_ID", "ATTEMPT_TOKEN")'
    controller = make(f"""python -c 'import os; print([os.environ["PLUMBLINE_" + name] for name in {names}])'""")
    job = await queue(controller)
    await start.reconcile(controller)

    async def ended() -> bool:
        found = await ray_job(controller, job)
        return found is not None and found.status is RayJobStatus.SUCCEEDED

    await until(ended)
    attempt_id = f"{job.id}-1"
    told = [controller.settings.callback_url, attempt_id, attempt_token(controller.settings, attempt_id)]
    assert (await controller.jobs.log_tail(attempt_id))[-1] == str(told)
