"""What streams share: readings, and the wake-ups that make them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text, update

from api import feeds
from api.feeds import Feed, Feeds, Follower
from api.log_frames import CHANNELS, Channel, Reading
from api.places import Places, has_changed
from api.queue_views import Place
from service.clock import utc_now
from service.db import notifications
from service.db.session import Database
from service.db.tables import Event, Job
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import JobState
from service.jobs.transitions import transition
from service.queue import view as queue_view
from service.queue.view import QueueViews
from service.settings import Settings
from service.telemetry.metrics import REGISTRY
from tests.service.conftest import add_job

EVENTS = CHANNELS[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "GATHER_S", 0.01)
    monkeypatch.setattr(feeds, "POLL_EVERY_S", 0.05)
    monkeypatch.setattr(feeds, "LOOK_AGAIN_S", 3600)  # what these tests see was told or polled for
    monkeypatch.setattr(notifications, "_RECONNECT_S", 0.05)


def places(database: Database) -> Places:
    return Places(QueueViews(database, Settings(max_running_jobs=1)))


@pytest.fixture
async def open_feeds(database: Database) -> AsyncIterator[Feeds]:
    hub = Feeds(database, places(database), asyncio.Event())
    async with hub.kept_up_to_date():
        yield hub


@pytest.fixture
async def job(database: Database) -> Job:
    async with database.transaction() as session:
        return await add_job(session)


async def append(database: Database, job: Job, count: int = 1) -> None:
    async with database.transaction() as session:
        stored = await JobRepository(session).get(job.id)
        for _ in range(count):
            await append_event(session, stored, "data.prepared", "a message")


class Reader:
    """Reads a follower as a stream does."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.seen: list[int] = []
        self.jobs: list[str] = []
        self.ended = False

    async def until(self, number: int) -> None:
        """Until this event has come."""
        async with asyncio.timeout(30):
            while number not in self.seen:
                await self.read()
                if number not in self.seen:
                    await self.follower.wait(30)

    async def read(self) -> None:
        news = await self.follower.news()
        for frame in b"".join(news.frames).decode().split("\n\n"):
            if frame.startswith("id: "):
                self.seen.append(int(frame.partition("\n")[0].removeprefix("id: ")))
            elif frame:
                self.jobs.append(frame)
        self.ended = news.ended


@asynccontextmanager
async def reader(hub: Feeds, job: Job, after: int = 0, channel: Channel = EVENTS) -> AsyncIterator[Reader]:
    with hub.following(channel, job, after) as follower:
        yield Reader(follower)


async def test_every_stream_of_a_job_gets_every_event_once_in_order(
    open_feeds: Feeds, database: Database, job: Job
) -> None:
    await append(database, job, 3)
    async with reader(open_feeds, job) as early, reader(open_feeds, job, after=2) as resumed:
        await early.until(3)
        await append(database, job, 2)
        await resumed.until(5)
        async with reader(open_feeds, job) as late:
            await append(database, job, 2)
            for one in (early, resumed, late):
                await one.until(7)
            assert early.seen == late.seen == [1, 2, 3, 4, 5, 6, 7]
            assert resumed.seen == [3, 4, 5, 6, 7]


async def test_the_lag_of_what_is_followed_is_measured_and_not_the_age_of_history(
    open_feeds: Feeds, database: Database, job: Job
) -> None:
    def measured(kind: str) -> float:
        return REGISTRY.get_sample_value(f"plumbline_stream_lag_seconds_{kind}") or 0.0

    await append(database, job)
    async with database.transaction() as session:
        await session.execute(update(Event).values(created_at=utc_now() - timedelta(days=9)))
        job = await JobRepository(session).get(job.id)
    before = measured("sum")
    async with reader(open_feeds, job) as one:
        await one.until(1)
        count = measured("count")
        await append(database, job)
        await one.until(2)
        assert measured("count") > count
    assert measured("sum") - before < 86400


async def test_writers_and_streams_that_come_and_go_miss_nothing(
    open_feeds: Feeds, database: Database, job: Job
) -> None:
    async def write() -> None:
        for _ in range(20):
            await append(database, job, 2)

    async def follow() -> list[int]:
        seen: list[int] = []
        while 40 not in seen:
            async with reader(open_feeds, job, after=seen[-1] if seen else 0) as one:
                for _ in range(3):
                    await one.read()
                    await one.follower.wait(0.02)
                seen += one.seen
        return seen

    async with asyncio.timeout(60):
        writing = asyncio.create_task(write())
        for seen in await asyncio.gather(*(follow() for _ in range(5))):
            assert seen == list(range(1, 41))
        await writing


async def test_streams_in_step_share_one_reading(
    open_feeds: Feeds, database: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    read = feeds.read

    async def counted(*args: Any) -> dict[str, Reading]:
        asked.append(args)
        return await read(*args)

    with open_feeds.following(EVENTS, job, 0) as first:
        readers = [Reader(first), *(Reader(open_feeds_follower(open_feeds, job, first)) for _ in range(9))]
        for one in readers:
            await one.read()
        await append(database, job)
        for one in readers:
            await one.until(1)
        monkeypatch.setattr(feeds, "read", counted)
        await append(database, job)
        for one in readers:
            await one.until(2)
    assert 1 <= len(asked) < len(readers)


def open_feeds_follower(hub: Feeds, job: Job, beside: Follower) -> Follower:
    """Another stream of the feed, for as long as the first one is open."""
    return Follower(hub, (EVENTS, job.id), beside._feed, 0)


async def test_a_change_without_an_event_is_seen_too(open_feeds: Feeds, database: Database, job: Job) -> None:
    async with reader(open_feeds, job) as one:
        await one.read()
        async with database.transaction() as session:
            stored = await JobRepository(session).get(job.id)
            stored.stage = "train"
        async with asyncio.timeout(30):
            while '"stage":"train"' not in one.jobs[-1]:
                await one.follower.wait(30)
                await one.read()
    assert len(one.jobs) == 2


async def test_a_stream_ends_with_its_job_and_with_a_job_that_is_gone(
    open_feeds: Feeds, database: Database, job: Job
) -> None:
    async with database.transaction() as session:
        gone = await add_job(session)
    async with reader(open_feeds, job) as one, reader(open_feeds, gone) as other:
        await one.read()
        await other.read()
        async with database.transaction() as session:
            stored = await JobRepository(session).get(job.id)
            await transition(session, stored, JobState.CANCELLED, reason="asked to")
            await session.delete(await JobRepository(session).get(gone.id))
        async with asyncio.timeout(30):
            for reading in (one, other):
                while not reading.ended:
                    await reading.follower.wait(30)
                    await reading.read()
    assert (one.seen, other.seen) == ([1], [])


async def test_a_lost_connection_is_polled_around_and_made_again(
    open_feeds: Feeds, database: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite notifies nobody")

    async def listening(expected: bool) -> None:
        async with asyncio.timeout(30):
            while open_feeds._listening is not expected:  # noqa: ASYNC110 - what is tested has no event for it
                await asyncio.sleep(0.01)

    async with reader(open_feeds, job) as one:
        await listening(True)
        await append(database, job)
        await one.until(1)

        monkeypatch.setattr(notifications, "_RECONNECT_S", 3600)
        async with database.engine.connect() as connection:
            await connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            )
        await listening(False)
        await append(database, job)
        await one.until(2)
    assert one.seen == [1, 2]


async def test_notifications_come_again_after_a_lost_connection(
    open_feeds: Feeds, database: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite notifies nobody")
    monkeypatch.setattr(feeds, "POLL_EVERY_S", 3600)  # nothing but a notification wakes
    async with reader(open_feeds, job) as one:
        for number in (1, 2):
            await append(database, job)
            await one.until(number)
            async with database.engine.connect() as connection:
                await connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
                )
        await append(database, job)
        await one.until(3)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("add_listener", asyncpg.ReadOnlySQLTransactionError("cannot execute LISTEN during recovery")),
        ("add_listener", asyncpg.AdminShutdownError("terminating connection due to administrator command")),
        ("execute", asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")),
        ("execute", asyncpg.InterfaceError("cannot perform operation: connection is closed")),
    ],
)
async def test_streams_go_on_after_the_driver_itself_has_refused_to_listen(
    database: Database, job: Job, monkeypatch: pytest.MonkeyPatch, asked: str, said: Exception
) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite notifies nobody")
    monkeypatch.setattr(feeds, "POLL_EVERY_S", 3600)  # nothing but a notification wakes
    monkeypatch.setattr(notifications, "_PROBE_EVERY_S", 0.05)
    ask = getattr(asyncpg.Connection, asked)
    refused = asyncio.Event()

    async def refuse_once(connection: Any, what: str, *args: Any) -> Any:
        if what in (notifications.CHANNEL, "SELECT 1") and not refused.is_set():
            refused.set()
            raise said
        return await ask(connection, what, *args)

    monkeypatch.setattr(asyncpg.Connection, asked, refuse_once)
    hub = Feeds(database, places(database), asyncio.Event())
    async with hub.kept_up_to_date():
        await asyncio.wait_for(refused.wait(), 30)
        async with reader(hub, job) as one:
            for number in (1, 2):
                await append(database, job)
                await one.until(number)


async def test_a_reader_that_goes_in_the_middle_of_a_query_leaves_it_to_finish(
    database: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
    read = feeds.read

    async def slow(*args: Any) -> dict[str, Reading]:
        asked.set()
        await answer.wait()
        found = await read(*args)
        finished.set()
        return found

    monkeypatch.setattr(feeds, "read", slow)
    with Feeds(database, places(database), asyncio.Event()).following(EVENTS, job, 0) as follower:
        reading = asyncio.ensure_future(follower.news())
        await asyncio.wait_for(asked.wait(), 30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    answer.set()
    await asyncio.wait_for(finished.wait(), 30)


def test_a_feed_holds_only_the_newest_frames() -> None:
    feed = Feed(head=10)
    one = b"x" * (feeds._HELD_BYTES // 4)
    feed.take(Reading(16, [(number, one) for number in range(11, 17)]), read_at=0.0)
    assert not feed.holds_after(10)
    assert feed.holds_after(12)
    assert feed.after(14) == one * 2
    assert feed.after(16) == b""


async def test_streams_hear_of_it_when_what_feeds_them_has_broken(
    database: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: Any) -> dict[str, Reading]:
        raise ZeroDivisionError

    hub = Feeds(database, places(database), asyncio.Event())
    async with hub.kept_up_to_date():
        with hub.following(EVENTS, job, 0) as follower:
            await follower.news()
            monkeypatch.setattr(feeds, "read", broken)
            hub.read_again((EVENTS, job.id))
            assert hub._task is not None
            await asyncio.wait([hub._task], timeout=30)
            with pytest.raises(ExceptionGroup) as broke:
                await follower.news()
    assert broke.group_contains(ZeroDivisionError)


async def test_a_stream_tells_why_a_job_waits_and_when_that_changes(
    database: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(queue_view, "_FRESH_S", 0.0)
    async with database.transaction() as session:
        behind = await add_job(session)
    hub = Feeds(database, places(database), asyncio.Event())
    told: list[dict[str, Any]] = []

    async def read_until(code: str | None) -> None:
        while not told or (told[-1]["waiting"] or {}).get("code") != code:
            for frame in (await follower.news()).frames:
                told.extend(json.loads(line[6:]) for line in frame.decode().splitlines() if line.startswith("data: {"))
            told[:] = [one for one in told if one.get("object") == "job"]
            await follower.wait(1)

    async with asyncio.timeout(60), hub.kept_up_to_date():
        with hub.following(EVENTS, behind, 0) as follower:
            await read_until("max_running_jobs")
            assert told[-1]["waiting"]["position"] == 1
            async with database.transaction() as session:
                first = await JobRepository(session).get(job.id)
                await transition(session, first, JobState.CANCELLED, reason="")
            await read_until("next")
            assert told[-1]["eta"]["start_high"]
            async with database.transaction() as session:
                last = await JobRepository(session).get(behind.id)
                await transition(session, last, JobState.CANCELLED, reason="")
            await read_until(None)
    assert told[-1]["state"] == "cancelled"


def test_an_estimate_that_hardly_moves_is_not_told_again() -> None:
    now = utc_now()

    def place(minutes: float | None, position: int = 1) -> Place:
        at = now + timedelta(minutes=minutes) if minutes is not None else None
        eta = {"start_low": at, "start_high": at, "finish_low": at, "finish_high": at}
        waiting = {"code": "pool_full", "message": "", "position": position, "needs": [], "holders": [], "ahead": None}
        return Place.model_validate({"waiting": waiting, "eta": eta})

    assert not has_changed(place(100), place(105), now)
    assert has_changed(place(100), place(120), now)
    assert not has_changed(place(1), place(1.4), now)
    assert has_changed(place(1), place(2), now)
    assert has_changed(place(None), place(1), now)
    assert has_changed(place(1, 2), place(1, 1), now)
    assert has_changed(Place(waiting=None, eta=None), place(1), now)
