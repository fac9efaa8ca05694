"""What the plan is made from, and what becomes of it, on a real database; the cluster does not answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from service.clock import utc_now
from service.cluster.http import ClusterError, connect
from service.controller import start
from service.controller.context import Controller, make_controller
from service.controller.foretell import Foretell
from service.db.session import Database
from service.db.tables import Attempt, ClusterView, Forecast, Job
from service.errors import SpecUnreadable
from service.jobs import lifecycle
from service.jobs.repository import JobRepository
from service.jobs.states import AttemptState, JobState
from service.jobs.transitions import transition
from service.queue import snapshot as snapshots
from service.queue.score import scores
from service.queue.snapshot import take
from service.queue.view import QueueViews
from service.queue.words import FAR_BACK
from service.settings import Settings
from tests.service.conftest import add_job

Make = Callable[..., Controller]


@pytest.fixture
async def make(settings: Settings, database: Database) -> AsyncIterator[Make]:
    """A controller whose cluster is away; arguments override settings."""
    settings = settings.model_copy(update={"ray_url": "http://127.0.0.1:9"})
    client = connect(settings)
    yield lambda **changed: make_controller(settings.model_copy(update=changed), database, client)
    await client.aclose()


async def add(database: Database, **columns: Any) -> Job:
    async with database.transaction() as session:
        return await add_job(session, **columns)


async def add_run(database: Database, seconds: float, **columns: Any) -> Job:
    """A job that has succeeded in this time, an hour ago."""
    begun = utc_now() - timedelta(hours=1)
    ended = begun + timedelta(seconds=seconds)
    at = {"started_at": begun, "finished_at": ended}
    job = await add(database, state=JobState.SUCCEEDED, num_attempts=1, **at | columns)
    async with database.transaction() as session:
        leased = begun - timedelta(seconds=4)
        done = {"state": AttemptState.SUCCEEDED, "created_at": leased, "finished_at": ended}
        session.add(Attempt(id=f"{job.id}-1", job_id=job.id, number=1, last_seq=0, **done))
    return job


async def see(database: Database, *nodes: dict[str, Any]) -> None:
    async with database.transaction() as session:
        session.add(ClusterView(id=1, nodes=list(nodes), observed_at=utc_now(), tried_at=utc_now()))


async def on_cluster(database: Database) -> int:
    async with database.reading() as session:
        return await JobRepository(session).count_on_cluster()


async def test_controllers_that_plan_at_once_start_no_more_than_one_of_them_would(
    make: Make, database: Database
) -> None:
    for _ in range(6):
        await add(database)
    controllers = [make(max_running_jobs=2) for _ in range(4)]
    await asyncio.gather(*(start._lease(controller) for controller in controllers))
    assert await on_cluster(database) == 2


async def test_without_any_look_at_the_cluster_jobs_start_by_their_number(make: Make, database: Database) -> None:
    await add(database)
    controller = make()
    await start._lease(controller)
    assert await on_cluster(database) == 1
    async with database.reading() as session:
        view = await session.get(ClusterView, 1)
    assert view is not None
    assert (view.observed_at, "does not answer" in (view.trouble or "")) == (None, True)


async def test_a_cluster_that_was_seen_without_the_pool_keeps_the_job(make: Make, database: Database) -> None:
    await see(database, {"label": "serving", "gpus": 1.0, "cpus": 4.0, "accelerator": None})
    job = await add(database)
    await start._lease(make())
    assert await on_cluster(database) == 0
    waiting = (await QueueViews(database, make().settings).now()).waiting(job)
    assert waiting is not None
    assert waiting.code == "never_fits"
    assert "pool=policy" in waiting.message


async def test_with_nodes_added_on_demand_nothing_waits_for_them(make: Make, database: Database) -> None:
    await see(database, {"label": "serving", "gpus": 1.0, "cpus": 4.0, "accelerator": None})
    await add(database)
    await start._lease(make(autoscaling=True))
    assert await on_cluster(database) == 1


async def test_of_each_project_the_next_jobs_are_looked_at(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "PER_PROJECT", 4)
    many = [await add(database, priority=place // 4) for place in range(8)]
    theirs = await add(database, project_id="bob")
    async with database.reading() as session:
        taken = await take(session, settings, utc_now())
    oldest, highest = many[:2], many[4:6]
    assert {job.id for job in taken.queued} == {job.id for job in (*oldest, *highest, theirs)}
    assert taken.beyond == 4
    assert (await QueueViews(database, settings).now()).waiting(many[7]) == FAR_BACK


async def test_a_job_that_is_retried_has_its_patience_anew(settings: Settings, database: Database) -> None:
    job = await add(database, state=JobState.FAILED, created_at=utc_now() - timedelta(days=30))
    async with database.transaction() as session:
        await transition(session, await JobRepository(session).get(job.id), JobState.QUEUED, reason="A retry.")
    async with database.reading() as session:
        taken = await take(session, settings, utc_now())
    assert utc_now() - taken.queued[0].queued_at < timedelta(hours=1)


async def test_what_is_foretold_is_kept_once_and_scored_when_it_has_happened(make: Make, database: Database) -> None:
    for _ in range(3):
        await add_run(database, 100)
    controller = make()
    job = await add(database)
    for _ in range(2):
        await Foretell().reconcile(controller)
    async with database.reading() as session:
        kept = (await session.scalars(select(Forecast))).all()
    assert [(one.job_id, one.moment) for one in kept] == [(job.id, "queued")]
    assert kept[0].start_low is not None
    assert kept[0].finish_high is not None
    async with database.transaction() as session:
        row = await JobRepository(session).get(job.id)
        row.state, row.started_at, row.finished_at = JobState.SUCCEEDED, kept[0].start_low, kept[0].finish_high
    async with database.reading() as session:
        start_score, finish_score, _ = await scores(session, utc_now() - timedelta(days=1))
    assert (start_score.count, start_score.coverage) == (1, 1)
    assert (finish_score.count, finish_score.coverage) == (1, 1)


async def test_forecasts_of_a_job_that_goes_go_with_it(make: Make, database: Database) -> None:
    await add_run(database, 100)
    job = await add(database)
    await Foretell().reconcile(make())
    async with database.transaction() as session:
        await session.delete(await JobRepository(session).get(job.id))
    async with database.reading() as session:
        assert (await session.scalars(select(Forecast))).all() == []


async def test_a_job_that_this_version_does_not_take_fails_and_says_so_and_holds_up_nobody(
    database: Database, make: Make
) -> None:
    leased = await add(database)
    old = await add(database, spec=leased.spec | {"an_option": "of long ago"})
    await start._lease(make())
    async with database.reading() as session:
        failed, started = [await JobRepository(session).get(job.id) for job in (old, leased)]
    assert (failed.state, failed.error and failed.error["code"]) == (JobState.FAILED, "spec_unreadable")
    assert started.state is JobState.STARTING
    with pytest.raises(SpecUnreadable, match="submit it again"):
        await lifecycle.retry(database, "ada", old.id)

    async with database.transaction() as session:  # an upgrade between the lease and the submission
        (await JobRepository(session).get(leased.id)).spec = old.spec
    with pytest.raises(ClusterError):  # the cluster is away; whoever is not there is asked for first
        await start.reconcile(make())
    async with database.reading() as session:
        attempt = (await session.scalars(select(Attempt).where(Attempt.job_id == leased.id))).one()
    with pytest.raises(SpecUnreadable):
        await start._bring(make(), attempt)


async def test_what_a_project_has_held_counts_as_far_as_it_lies_in_the_window(
    settings: Settings, database: Database
) -> None:
    now = utc_now().replace(microsecond=0)  # SQLite rounds times to milliseconds, a half of one up or down
    window = settings.model_copy(update={"fair_share_window_s": 3600})

    async def held(project_id: str, gpus: float | None, begun_s: float, ended_s: float | None) -> None:
        """From and to so many seconds ago."""
        job = await add(database, project_id=project_id, gpus=gpus, num_attempts=1)
        begun, ended = (now - timedelta(seconds=ago) if ago is not None else None for ago in (begun_s, ended_s))
        state = AttemptState.RUNNING if ended is None else AttemptState.SUCCEEDED
        async with database.transaction() as session:
            times = {"created_at": begun, "finished_at": ended}
            session.add(Attempt(id=f"{job.id}-1", job_id=job.id, number=1, last_seq=0, state=state, **times))

    await held("whole", 2.0, 300, 100.5)
    await held("whole", 0.5, 50, 40)
    await held("since before", None, 7200, 1800)
    await held("now", 4.0, 10, None)
    await held("by a clock that is ahead", 4.0, -10, None)
    await held("long ago", 8.0, 7200, 3601)
    async with database.reading() as session:
        seen = await take(session, window, now)
    assert seen.used == {"whole": 409.0, "since before": 1800.0, "now": 40.0, "by a clock that is ahead": 0.0}
