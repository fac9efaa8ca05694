"""What is new about the jobs that someone follows: read once for all streams of a job, and handed to each.

A replica is woken by PostgreSQL's notifications; on SQLite, and while there is no connection that listens, it polls,
all jobs in one query. Either is only a wake-up: what a stream sends is read from the tables, by number, so nothing is
missed and nothing comes twice. A stream that is behind what is held here reads for itself.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from api.log_frames import CHANNELS, Channel, Reading, read
from api.places import Places
from api.sse import News
from service.clock import utc_now
from service.db.notifications import listen
from service.db.session import Database
from service.db.tables import Job
from service.db.trouble import TROUBLE
from service.jobs.log import LogRepository
from service.telemetry.metrics import STREAM_LAG_SECONDS

log = logging.getLogger(__name__)

POLL_EVERY_S = 0.5
# Between two readings: what comes in the meantime is read, and sent, together. Longer after many streams were woken: to
# send to each costs the same for one event as for a hundred, and takes a quarter of the process's time at most so.
GATHER_S = 0.1
_GATHER_PER_STREAM_S = 0.0003
LOOK_AGAIN_S = 5.0  # also at jobs of which nothing was heard: a part of what is shown of them may lie elsewhere
_RETRY_S = 1.0
_JOBS_AT_ONCE = 100
_HELD_BYTES = 128 * 2**10  # of a feed's newest frames

Key = tuple[Channel, str]  # the log, and the job's ID


class Feed:
    """The newest frames of one job's log."""

    def __init__(self, head: int) -> None:
        self.reading = Reading(head)  # the last one
        self.read_at = float("-inf")  # when it began, by time.monotonic()
        self.changed = asyncio.Event()  # set by the next reading, and replaced
        self.num_streams = 0
        self._start = head  # everything after this number, up to the reading's head, is held
        self._held: deque[tuple[int, bytes]] = deque()
        self._held_bytes = 0
        self._joined: dict[int, bytes] = {}

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def take(self, reading: Reading, read_at: float) -> None:
        self.reading, self.read_at = reading, read_at
        for number, frame in reading.frames:
            self._held.append((number, frame))
            self._held_bytes += len(frame)
        while self._held_bytes > _HELD_BYTES:
            self._start, dropped = self._held.popleft()
            self._held_bytes -= len(dropped)
        self._joined.clear()
        self.wake()

    def holds_after(self, number: int) -> bool:
        return number >= self._start

    def after(self, number: int) -> bytes:
        """The frames after this number, which must be held."""
        if number not in self._joined:  # streams that are in step get the same bytes
            self._joined[number] = b"".join(frame for at, frame in self._held if at > number)
        return self._joined[number]


class Feeds:
    """Those of one process. Whoever waits for news is woken when `leaving` is set."""

    def __init__(self, database: Database, places: Places, leaving: asyncio.Event) -> None:
        self._database = database
        self._places = places
        self._leaving = leaving
        self._feeds: dict[Key, Feed] = {}
        self._stale: dict[Key, None] = {}  # to be read again, in this order
        self._any_stale = asyncio.Event()
        self._listening = False
        self._seen: dict[str, Any] = {}  # by the last poll, of each job
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def kept_up_to_date(self) -> AsyncIterator[None]:
        """Streams may be open within."""
        self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])

    @contextmanager
    def following(self, channel: Channel, job: Job, after: int) -> Iterator["Follower"]:
        """What one stream reads from: the job's log after a number."""
        key = (channel, job.id)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(channel.last_number(job))
        feed.num_streams += 1
        try:
            yield Follower(self, key, feed, after)
        finally:
            feed.num_streams -= 1
            if not feed.num_streams:
                del self._feeds[key]

    def read_again(self, key: Key) -> None:
        """Soon."""
        self._stale[key] = None
        self._any_stale.set()

    async def read(self, key: Key, after: int) -> Reading:
        """For one stream that is behind."""
        channel, job_id = key
        await self._places.look_once()
        async with self._database.reading() as session:
            return (await read(session, channel, {job_id: after}, self._places))[job_id]

    def check(self) -> None:
        """Raises what has ended the task that keeps feeds up to date, if it has ended."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_stale())
            tasks.create_task(self._look())
            tasks.create_task(self._wake_all_to_leave())
            if not self._database.is_sqlite:
                tasks.create_task(listen(self._database, self._job_changed, self._now_listening))

    def _job_changed(self, job_id: str) -> None:
        for channel in CHANNELS:
            if (channel, job_id) in self._feeds:
                self.read_again((channel, job_id))

    def _now_listening(self, listening: bool) -> None:
        self._listening = listening
        if listening:  # something may have changed before
            self._all_changed()

    def _all_changed(self) -> None:
        for key in self._feeds:
            self.read_again(key)

    async def _wake_all_to_leave(self) -> None:
        await self._leaving.wait()
        for feed in self._feeds.values():
            feed.wake()

    async def _read_stale(self) -> None:
        while True:
            await self._any_stale.wait()
            self._any_stale.clear()
            stale, self._stale = list(self._stale), {}
            num_woken = sum(self._feeds[key].num_streams for key in stale if key in self._feeds)
            for channel in CHANNELS:
                job_ids = [key[1] for key in stale if key[0] == channel]
                for place in range(0, len(job_ids), _JOBS_AT_ONCE):
                    await self._patiently(partial(self._read, channel, job_ids[place : place + _JOBS_AT_ONCE]))
            await asyncio.sleep(GATHER_S + _GATHER_PER_STREAM_S * num_woken)

    async def _read(self, channel: Channel, job_ids: list[str]) -> None:
        feeds = {job_id: feed for job_id in job_ids if (feed := self._feeds.get((channel, job_id)))}
        if not feeds:
            return
        read_at = time.monotonic()
        async with self._database.reading() as session:
            heads = {job_id: feed.reading.head for job_id, feed in feeds.items()}
            readings = await read(session, channel, heads, self._places)
        for job_id, reading in readings.items():
            feeds[job_id].take(reading, read_at)
            if reading.oldest_at is not None:
                STREAM_LAG_SECONDS.observe(max(0.0, (utc_now() - reading.oldest_at).total_seconds()))
            if reading.more:
                self.read_again((channel, job_id))

    async def _look(self) -> None:
        """Find out by polling what nobody tells."""
        looked_at_all = time.monotonic()
        while True:
            await asyncio.sleep(POLL_EVERY_S)
            if time.monotonic() - looked_at_all > LOOK_AGAIN_S:
                if self._feeds:
                    await self._patiently(self._places.look)
                self._all_changed()
                looked_at_all = time.monotonic()
            elif not self._listening:
                await self._patiently(self._poll)

    async def _poll(self) -> None:
        job_ids = list({job_id for _, job_id in self._feeds})
        if not job_ids:
            return
        async with self._database.reading() as session:
            marks = await LogRepository(session).marks(job_ids)
        found = {job_id: marks.get(job_id) for job_id in job_ids}  # None: it is not there any more
        for job_id in job_ids:
            if job_id not in self._seen or found[job_id] != self._seen[job_id]:
                self._job_changed(job_id)
        self._seen = found

    async def _patiently(self, ask: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await ask()
            except TROUBLE as error:
                log.warning("what streams follow cannot be read: %s", error)
                await asyncio.sleep(_RETRY_S)


class Follower:
    """One stream's place in a feed."""

    def __init__(self, feeds: Feeds, key: Key, feed: Feed, after: int) -> None:
        self._feeds, self._key, self._feed, self._after = feeds, key, feed, after
        self._changed = feed.changed
        self._read_at = float("-inf")  # when the last reading of its own was over
        self._sent_job = b""

    async def news(self) -> News:
        self._feeds.check()
        self._changed = self._feed.changed  # before anything is read, so that no change is slept through
        if self._feed.read_at > self._read_at and self._feed.holds_after(self._after):
            reading, frames = self._feed.reading, self._feed.after(self._after)
            more = False
        elif self._read_at > float("-inf") and self._feed.holds_after(self._after):
            return News()  # the feed may be older than what this stream has read itself: wait for its next reading
        else:
            # Shielded: a reader that goes away in the middle of a query must not tear down a connection of the pool.
            reading = await asyncio.shield(asyncio.ensure_future(self._feeds.read(self._key, self._after)))
            frames = b"".join(frame for _, frame in reading.frames)
            more = reading.more
            self._read_at = time.monotonic()
            self._feeds.read_again(self._key)
        self._after = max(self._after, reading.head)
        found = [reading.job] if reading.job != self._sent_job else []
        self._sent_job = reading.job
        if frames:
            found.append(frames)
        return News(found, more=more, ended=reading.ended and not more)

    async def wait(self, timeout_s: float) -> None:
        """Until there may be news, or for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return
