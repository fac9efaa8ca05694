"""Two controllers over one database and one Ray."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import func, select

from service import leases
from service.cluster.jobs import RayJobs
from service.controller import leader, loop, start
from service.controller.context import ClusterCode, Controller
from service.controller.leader import LeasedDatabase
from service.controller.loop import run
from service.db import tables
from service.db.session import Database
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.leases import LeaseLost
from service.settings import Settings
from tests.controller.conftest import SLEEPS, look, queue, ray_job, until

Make = Callable[..., Controller]

LEASE_S = 2.0


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[asyncio.Event]:
    """A controller with connections of its own. Setting the event ends it, as the end of the block does."""
    database, stop = Database(settings.sqlalchemy_url), asyncio.Event()
    task = asyncio.create_task(run(settings, database, stop, ClusterCode(attempt=SLEEPS)))
    try:
        yield stop
    finally:
        stop.set()
        await task
        await database.close()


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The attempts that any controller of this process has submitted to Ray, which takes them."""
    seen: list[str] = []
    submit = RayJobs.submit

    async def seeing(self: RayJobs, submission_id: str, *args: object, **kwargs: object) -> None:
        await submit(self, submission_id, *args, **kwargs)  # type: ignore[arg-type]
        seen.append(submission_id)  # not before: what Ray was too busy to answer is sent again

    monkeypatch.setattr(RayJobs, "submit", seeing)
    return seen


async def holder(controller: Controller) -> tables.Lease | None:
    async with controller.database.reading() as session:
        return (await session.scalars(select(tables.Lease))).one_or_none()


async def starting(controller: Controller) -> int:
    async with controller.database.reading() as session:
        return len(await JobRepository(session).in_states(JobState.STARTING))


async def test_two_controllers_submit_every_attempt_once(make: Make, submitted: list[str]) -> None:
    controller = make(max_running_jobs=4, reconcile_every_s=0.02)
    jobs = [await queue(controller) for _ in range(4)]
    async with running(controller.settings), running(controller.settings):

        async def all_submitted() -> bool:  # as Ray has it: of one that it took, the answer may have been lost
            return None not in [await ray_job(controller, job) for job in jobs]

        await until(all_submitted)
        await asyncio.sleep(0.3)  # a second one would come within a few steps
    assert len(submitted) == len(set(submitted))
    assert set(submitted) <= {f"{job.id}-1" for job in jobs}
    assert [(await look(controller, job))[0].num_attempts for job in jobs] == [1] * 4


async def test_a_controller_that_stops_is_followed_at_once(make: Make) -> None:
    controller = make(reconcile_every_s=0.02, lease_s=600)
    async with running(controller.settings) as stop_first:

        async def led() -> bool:
            return await holder(controller) is not None

        await until(led)
        async with running(controller.settings):
            job = await queue(controller)
            stop_first.set()

            async def followed() -> bool:
                row = await holder(controller)
                return row is not None and row.term == 2

            await until(followed, patience_s=20)
            await until(lambda: _is(controller, job.id, JobState.STARTING))


async def test_a_leader_in_a_long_step_gives_its_lease_up_all_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = make(reconcile_every_s=0.02, lease_s=600)
    monkeypatch.setattr(loop, "LEAVE_WITHIN_S", 0.1)
    job = await queue(controller)
    submitting = asyncio.Event()

    async def endless(_jobs: RayJobs, *_args: object, **_kwargs: object) -> None:
        submitting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(RayJobs, "submit", endless)
    async with asyncio.timeout(60), running(controller.settings):
        await submitting.wait()
    lease = await leases.acquire(controller.database, leader.NAME, "the next one", 60)
    assert lease is not None
    assert await _is(controller, job.id, JobState.STARTING)  # the next leader submits it


async def test_a_leader_that_falls_over_a_bug_leaves_its_lease_to_the_next_one(make: Make) -> None:
    controller = make(lease_s=600)

    async def work(_lease: leases.Lease) -> None:
        raise KeyError("a bug")

    with pytest.raises(ExceptionGroup):
        await leader.lead(controller.settings, controller.database, asyncio.Event(), work)
    assert await leases.acquire(controller.database, leader.NAME, "next", 600) is not None


async def _is(controller: Controller, job_id: str, state: JobState) -> bool:
    async with controller.database.reading() as session:
        return (await JobRepository(session).get(job_id)).state is state


@pytest.fixture
def other_process(settings: Settings, tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts a controller in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []
    assert settings.ray_token is not None
    env = os.environ | {
        "PLUMBLINE_HOME": str(tmp_path),
        "PLUMBLINE_DATABASE_URL": settings.sqlalchemy_url,
        "PLUMBLINE_SECRET": "a secret of this test",
        "PLUMBLINE_RAY_URL": settings.ray_url,
        "PLUMBLINE_RAY_TOKEN": settings.ray_token.get_secret_value(),
        "PLUMBLINE_LEASE_S": str(LEASE_S),
        "PLUMBLINE_RECONCILE_EVERY_S": "0.05",
    }

    def begin() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", "from api.cli.main import app; app()", "controller"]
        started.append(subprocess.Popen(command, env=env, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


async def test_a_controller_that_is_killed_is_followed_within_seconds(
    make: Make, other_process: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    controller = make(reconcile_every_s=0.05, lease_s=LEASE_S)
    process = other_process()

    async def led() -> bool:
        return await holder(controller) is not None

    await until(led)
    process.kill()
    job = await queue(controller)
    async with running(controller.settings):
        await until(lambda: _is(controller, job.id, JobState.STARTING), patience_s=20)
    row = await holder(controller)
    assert row is not None
    assert row.term > 1


async def test_a_controller_that_stood_still_finds_itself_replaced_and_stands_by(
    make: Make, other_process: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    controller = make(reconcile_every_s=0.05)  # whose own lease is long: a busy machine does not take it away
    process = other_process()

    async def led_by_it() -> bool:
        row = await holder(controller)
        return row is not None and row.holder.endswith(f":{process.pid}")

    await until(led_by_it)
    async with controller.database.transaction():  # it stands still without SQLite's lock, which it would keep
        process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
    async with running(controller.settings):

        async def led_by_us() -> bool:
            row = await holder(controller)
            return row is not None and row.holder.endswith(f":{os.getpid()}")

        await until(led_by_us, patience_s=30)
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(3 * LEASE_S)
        assert await led_by_us()
        assert process.poll() is None
    await until(led_by_it)  # it has stood by


async def test_a_step_that_outlives_the_lease_writes_nothing(make: Make) -> None:
    controller = make()
    job = await queue(controller)
    lease = await leases.acquire(controller.database, leader.NAME, "before", 60)
    assert lease is not None
    late = Controller(
        controller.settings,
        LeasedDatabase(controller.database, lease),
        controller.jobs,
        controller.nodes,
        controller.serve,
        controller.code,
    )
    await leases.release(controller.database, lease)
    with pytest.raises(LeaseLost):
        await start.reconcile(late)
    assert (await look(controller, job))[0].state is JobState.QUEUED


async def test_under_a_lease_a_database_is_read_in_every_way(make: Make) -> None:
    controller = make()
    await queue(controller)
    lease = await leases.acquire(controller.database, leader.NAME, "now", 60)
    assert lease is not None
    leased = LeasedDatabase(controller.database, lease)
    count = select(func.count()).select_from(tables.Job.__table__)
    async with leased.transaction() as session, leased.reading(brief=True) as reader:
        assert await session.scalar(count) == await reader.scalar(count) == 1
    async with leased.snapshot() as connection:
        assert await connection.scalar(count) == 1
    assert await leased.look_up(count) == (1,)


async def test_a_process_that_stood_still_sends_nothing_to_the_cluster(
    make: Make, monkeypatch: pytest.MonkeyPatch, submitted: list[str]
) -> None:
    controller = make(reconcile_every_s=0.02, lease_s=LEASE_S)
    job = await queue(controller)
    refused: list[str] = []
    get = RayJobs.get

    async def late(self: RayJobs, submission_id: str) -> object:
        """The first question to the cluster comes after the lease has expired."""
        if submission_id != f"{job.id}-1":  # another test's controller may still run
            return await get(self, submission_id)
        if not refused:
            time.sleep(1.5 * LEASE_S)  # noqa: ASYNC251 - the whole process
            refused.append(submission_id)
            with pytest.raises(LeaseLost):
                await get(self, submission_id)
            assert submitted == []
            raise LeaseLost
        return await get(self, submission_id)

    monkeypatch.setattr(RayJobs, "get", late)
    async with running(controller.settings):

        async def led_again() -> bool:  # as Ray has it: a busy machine may lose the lease again before the answer
            return bool(refused) and await ray_job(controller, job) is not None

        await until(led_again)
    assert refused == [f"{job.id}-1"]
    assert submitted in ([], refused)


async def test_a_lease_that_is_renewed_as_its_time_runs_out_is_given_up_quietly(make: Make) -> None:
    database = make().database
    lease = await leases.acquire(database, "controller", "this test", 0.9)
    assert lease is not None

    async def run_out() -> None:
        async with asyncio.timeout(0) as deadline:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                with suppress(LeaseLost):  # by a database that takes longer than the lease
                    await leader._renew(lease, database, deadline)
                raise

    with pytest.raises(TimeoutError):
        await run_out()
