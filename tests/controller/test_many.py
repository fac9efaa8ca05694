"""Passes over many attempts: what they ask of the cluster, the API and the database does not grow as it need not."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy import select, update

from benchmarks.scale_cluster import Cluster, Size
from service.clock import utc_now
from service.controller import budget, start
from service.controller.context import Controller, make_controller
from service.controller.watch import Watch
from service.db.session import Database
from service.db.tables import Attempt, Job
from service.jobs.attempts import note_first_word, start_attempt
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import JobState
from service.settings import Settings
from tests.databases import statements
from tests.service.conftest import add_job


@pytest.fixture
async def health() -> AsyncIterator[tuple[str, list[int]]]:
    """An API that is well: its address, and a note of each time that it was asked."""
    asked: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.append(1)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.fixture
def settings(tmp_path: Path, database_url: str, health: tuple[str, list[int]]) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        api_url=health[0],
        secret="s",
        max_running_jobs=1000,
        lease_s=600,
        heartbeat_every_s=30,  # who has just spoken has for as long as a busy machine takes for some passes
    )


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Of 16 nodes with 8 GPUs each for training, among others."""
    cluster = Cluster(Size(nodes=20, run_s=3600, report_every_s=3600, answer_s=0))
    yield cluster
    for driver in cluster.drivers:
        driver.cancel()


@pytest.fixture
async def controller(settings: Settings, database: Database, cluster: Cluster) -> AsyncIterator[Controller]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(cluster), base_url="http://ray") as client:
        yield make_controller(settings, database, client)


async def _queue(controller: Controller, count: int) -> None:
    """Jobs of several projects that take a GPU of a node for training each, and no other."""
    async with controller.database.transaction() as session:
        for number in range(count):
            job = await add_job(session, project_id=f"team-{number % 6}")
            job.spec = job.spec | {"resources": job.spec["resources"] | {"reference_placement": "policy"}}


async def _run(controller: Controller, cluster: Cluster, count: int, **resources: object) -> list[str]:
    """Jobs whose attempts run on the cluster; returns those attempts' IDs."""
    ids = []
    async with controller.database.transaction() as session:
        for _ in range(count):
            job = await add_job(session, gpus=1.0)
            job.spec = job.spec | {"resources": job.spec["resources"] | resources}
            attempt = await start_attempt(session, job)
            await note_first_word(session, job, attempt)
            cluster.jobs[attempt.id] = {"status": "RUNNING", "message": "", "driver_node_id": None}
            ids.append(attempt.id)
    return ids


async def _speak(controller: Controller, attempt_ids: list[str], ago_s: float) -> None:
    async with controller.database.transaction() as session:
        heard = {"heartbeat_at": utc_now() - timedelta(seconds=ago_s)}
        await session.execute(update(Attempt).where(Attempt.id.in_(attempt_ids)).values(heard))


async def _in_state(controller: Controller, state: JobState) -> int:
    async with controller.database.reading() as session:
        return len(await JobRepository(session).in_states(state))


async def test_an_empty_cluster_is_filled_fifty_jobs_a_transaction(controller: Controller, cluster: Cluster) -> None:
    await _queue(controller, 120)
    for expected in (50, 100, 120, 120):
        await start.reconcile(controller)
        assert await _in_state(controller, JobState.STARTING) == expected
        assert len(cluster.jobs) == expected


async def test_with_a_slow_database_a_transaction_starts_what_fits_into_a_third_of_the_lease(
    controller: Controller, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _queue(controller, 20)
    looks = count(step=100)
    clock = SimpleNamespace(monotonic=lambda: next(looks))  # as many seconds later at each look
    monkeypatch.setattr("service.controller.start.time", clock)
    await start.reconcile(controller)
    monkeypatch.undo()
    assert controller.settings.lease_s == 600
    assert await _in_state(controller, JobState.STARTING) == 3
    await start.reconcile(controller)
    assert await _in_state(controller, JobState.STARTING) == 20


async def test_of_many_leased_attempts_those_that_the_cluster_lacks_are_submitted(
    controller: Controller, cluster: Cluster
) -> None:
    await _queue(controller, 40)
    async with controller.database.transaction() as session:
        for job in (await session.scalars(select(Job))).all():
            await start_attempt(session, job)
    async with controller.database.reading() as session:
        known = [attempt.id for attempt in await AttemptRepository(session).active()][:30]
    cluster.jobs |= {id: {"status": "RUNNING", "message": "", "driver_node_id": None} for id in known}
    await start.reconcile(controller)
    assert len(cluster.jobs) == 40
    assert len(cluster.drivers) == 10


async def test_attempts_that_the_cluster_has_just_taken_are_not_asked_about_before_they_speak(
    controller: Controller, cluster: Cluster
) -> None:
    await _queue(controller, 40)
    await start.reconcile(controller)
    cluster.looked_at.clear()
    await start.reconcile(controller)
    assert cluster.looked_at == []


async def test_what_the_cluster_has_forgotten_is_submitted_again_once_that_is_seen(
    controller: Controller, cluster: Cluster
) -> None:
    await _queue(controller, 3)
    await start.reconcile(controller)
    cluster.jobs.clear()
    await Watch().reconcile(controller)
    await start.reconcile(controller)
    assert len(cluster.jobs) == 3


async def test_an_attempt_that_speaks_again_was_not_silent(
    controller: Controller, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await _run(controller, cluster, 101)
    quiet_s = 10 * controller.settings.heartbeat_every_s
    now, watch = 1000.0, Watch()
    monkeypatch.setattr("service.controller.watch.time.monotonic", lambda: now)
    for ago_s in (quiet_s, 0, quiet_s):
        await _speak(controller, ids, ago_s=ago_s)
        await watch.reconcile(controller)
        now += 0.9 * controller.settings.heartbeat_timeout_s
    assert await _in_state(controller, JobState.RUNNING) == 101


async def test_the_api_is_asked_once_a_pass_however_many_attempts_are_silent(
    controller: Controller, cluster: Cluster, health: tuple[str, list[int]]
) -> None:
    await _speak(controller, await _run(controller, cluster, 40), ago_s=10 * controller.settings.heartbeat_every_s)
    watch = Watch()
    for passes in (1, 2):
        await watch.reconcile(controller)
        assert len(health[1]) == passes
    assert await _in_state(controller, JobState.RUNNING) == 40


async def test_of_many_attempts_that_have_just_spoken_all_are_looked_at_in_turns(
    controller: Controller, cluster: Cluster
) -> None:
    await _speak(controller, await _run(controller, cluster, 250), ago_s=0)
    watch, asked = Watch(), []
    for _ in range(3):
        asked.append(await _asked_about(controller, cluster, watch))
    assert [len(ids) for ids in asked] == [100, 100, 100]
    assert len(set().union(*asked)) == 250


async def test_attempts_that_have_not_just_spoken_are_looked_at_in_every_pass(
    controller: Controller, cluster: Cluster
) -> None:
    speaking, silent = await _run(controller, cluster, 150), await _run(controller, cluster, 30)
    never_heard = await _run(controller, cluster, 1)
    await _speak(controller, speaking, ago_s=0)
    await _speak(controller, silent, ago_s=2.5 * controller.settings.heartbeat_every_s)
    watch = Watch()
    for _ in range(2):
        asked = await _asked_about(controller, cluster, watch)
        assert asked.issuperset(silent + never_heard)
        assert len(asked) == 131


async def test_an_attempt_whose_driver_has_ended_is_looked_at_until_its_last_word_is_in(
    controller: Controller, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await _run(controller, cluster, 150)
    await _speak(controller, ids, ago_s=0)
    cluster.jobs[ids[0]] |= {"status": "FAILED"}
    monkeypatch.setattr("service.controller.watch.OUTCOME_GRACE_S", 600)
    watch = Watch()
    for _ in range(3):
        assert ids[0] in await _asked_about(controller, cluster, watch)


async def _asked_about(controller: Controller, cluster: Cluster, watch: Watch) -> set[str]:
    """The attempts that one pass asks the cluster about."""
    cluster.looked_at.clear()
    await watch.reconcile(controller)
    return set(cluster.looked_at)


async def test_budgets_that_are_not_spent_cost_as_many_statements_for_many_jobs_as_for_one(
    controller: Controller, cluster: Cluster
) -> None:
    counts = []
    for more in (1, 20):
        await _run(controller, cluster, more, max_gpu_hours=100.0)
        with statements(controller.database) as made:
            await budget.reconcile(controller)
        counts.append(len(made))
    assert counts == [1, 1]


async def test_of_many_jobs_those_whose_budget_is_spent_are_paused(controller: Controller, cluster: Cluster) -> None:
    await _run(controller, cluster, 3, max_gpu_hours=100.0)
    await _run(controller, cluster, 2, max_gpu_hours=1e-9)
    await budget.reconcile(controller)
    assert await _in_state(controller, JobState.PAUSING) == 2
    assert await _in_state(controller, JobState.RUNNING) == 3
