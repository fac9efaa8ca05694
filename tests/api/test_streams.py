import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, update

from api import sse
from api.app import create_app
from service.db import tables
from service.db.session import Database
from service.db.tables import Attempt, Job
from service.deployments import service as deployments
from service.jobs import attempts, reports
from service.jobs.states import DeploymentState
from service.settings import Settings
from service.spec.reports import EventReport, MetricsReport, OutcomeReport, ProgressReport, Report, ReportBatch
from tests.api.conftest import Frame, FrameReader, Server, problem, serve, until
from tests.service.conftest import add_job

STREAM = {"Accept": "text/event-stream"}
DONE = OutcomeReport(result="succeeded")


class Running:
    """A running job and its attempt, whose reports are taken as the API takes them."""

    def __init__(self, database: Database, settings: Settings, job: Job, attempt: Attempt) -> None:
        self.database, self.settings, self.attempt = database, settings, attempt
        self.path = f"/v1/jobs/{job.id}"
        self.sent = 0

    async def report(self, *batch: Report) -> None:
        async with self.database.transaction() as session:
            numbered = ReportBatch(first_seq=self.sent + 1, reports=list(batch))
            await reports.take_batch(session, self.attempt.id, numbered, self.settings)
        self.sent += len(batch)

    async def events(self, count: int) -> None:
        await self.report(*(EventReport(type="data.prepared", message=f"event {i}") for i in range(count)))


async def running(database: Database, settings: Settings, **columns: Any) -> Running:
    async with database.transaction() as session:
        job = await add_job(session, **columns)
        return Running(database, settings, job, await attempts.start_attempt(session, job))


@pytest.fixture
async def job(database: Database, settings: Settings) -> Running:
    return await running(database, settings)


@pytest.fixture
async def remote(server: Server, ada: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, headers=ada, timeout=30) as remote:
        yield remote


@pytest.fixture
def short_lived(settings: Settings, ada: dict[str, str]) -> Iterator[Server]:
    yield from serve(create_app(settings.model_copy(update={"stream_lifetime_s": 0.1})))


async def read(remote: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None) -> list[Frame]:
    """The whole stream."""
    async with remote.stream("GET", path, headers=STREAM | (headers or {})) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return [frame async for frame in FrameReader(response)]


def numbers(frames: list[Frame]) -> list[int]:
    return [frame.id for frame in frames if frame.id is not None]


async def test_a_stream_replays_then_follows_and_ends_with_the_job(remote: httpx.AsyncClient, job: Running) -> None:
    await job.events(3)
    frames: list[Frame] = []
    async with remote.stream("GET", f"{job.path}/events", headers=STREAM) as response:
        async for frame in FrameReader(response):
            frames.append(frame)
            if frame.id == 5:  # everything from before was replayed
                await job.events(2)
            if frame.id == 7:
                await job.report(DONE)

    assert frames[0].event == "job"
    assert frames[0].data["state"] == "running"
    assert frames[-1] == Frame("end", {})
    assert numbers(frames) == list(range(1, 9))
    assert [frame.data["type"] for frame in frames if frame.id][-1] == "job.succeeded"
    assert [frame.data["state"] for frame in frames if frame.event == "job"][-1] == "succeeded"
    for frame in frames:
        assert frame.id is None or frame.data["number"] == frame.id


async def test_a_job_frame_comes_whenever_progress_does(remote: httpx.AsyncClient, job: Running) -> None:
    await job.report()
    done: list[int] = []
    async with remote.stream("GET", f"{job.path}/events", headers=STREAM) as response:
        async for frame in FrameReader(response):
            if frame.event != "job":
                continue
            if "train" in frame.data["progress"]:
                done.append(frame.data["progress"]["train"]["done"])
            if len(done) == 2:
                break
            await job.report(ProgressReport(stage="train", done=len(done) + 1, total=9, unit="steps"))
    assert done == [1, 2]


async def test_a_reader_that_reconnects_after_any_frame_misses_nothing_and_sees_nothing_twice(
    remote: httpx.AsyncClient, job: Running
) -> None:
    await job.events(5)
    await job.report(DONE)
    whole = numbers(await read(remote, f"{job.path}/events"))
    for last in range(len(whole) + 1):
        rest = numbers(await read(remote, f"{job.path}/events", {"Last-Event-ID": str(last)}))
        assert whole[:last] + rest == whole
        assert numbers(await read(remote, f"{job.path}/events?after={last}")) == rest


async def test_a_reader_that_is_cut_off_again_and_again_gets_every_event_once(
    short_lived: Server, ada: dict[str, str], job: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.feeds.POLL_EVERY_S", 0.01)

    async def write() -> None:
        for _ in range(10):
            await job.events(3)
            await asyncio.sleep(0.05)
        await until(lambda: bool(endings))  # cut off once at least, however late the first stream opens
        await job.report(DONE)

    seen: list[int] = []
    endings: list[str] = []
    writing = asyncio.create_task(write())
    async with httpx.AsyncClient(base_url=short_lived.url, headers=ada, timeout=30) as remote:
        while not endings or endings[-1] != "end":
            frames = await read(remote, f"{job.path}/events", {"Last-Event-ID": str(seen[-1] if seen else 0)})
            seen += numbers(frames)
            endings.append(frames[-1].event)
    await writing
    assert seen == list(range(1, 34))
    assert set(endings) == {"reconnect", "end"}


async def test_a_log_longer_than_one_poll_is_replayed_whole(remote: httpx.AsyncClient, job: Running) -> None:
    for _ in range(3):
        await job.events(400)
    await job.report(DONE)
    assert numbers(await read(remote, f"{job.path}/events")) == list(range(1, 1204))


async def test_a_stream_waits_for_the_deployment_to_settle(
    remote: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    job = await running(database, settings, serve=True)
    await job.report(DONE)
    seen: list[str] = []
    async with remote.stream("GET", f"{job.path}/events", headers=STREAM) as response:
        async for frame in FrameReader(response):
            if frame.event == "job":  # comes with the event, or after it where the job was read a moment before
                continue
            seen.append(frame.data.get("type", frame.event))
            if seen[-1] == "deployment.deploying":
                async with database.transaction() as session:
                    [deployment] = await deployments.all_wanted(session)
                    await deployments.set_state(session, deployment, DeploymentState.READY)
    assert seen[-2:] == ["deployment.ready", "end"]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "", " ", "9" * 11, "9" * 5000, "2147483648", "٣"])
async def test_a_last_event_id_that_is_no_number_is_refused(client: httpx.AsyncClient, job: Running, last: str) -> None:
    headers: Any = {"Accept": "text/event-stream", "Last-Event-ID": last.encode()}
    answer = problem(await client.get(f"{job.path}/events", headers=headers), 422, "invalid_request")
    assert answer["field"] == "Last-Event-ID"


async def test_metrics_stream_and_end(remote: httpx.AsyncClient, job: Running) -> None:
    await job.report(*(MetricsReport(step=step, values={"loss": 1 / (step + 1)}) for step in range(3)))
    await job.report(MetricsReport(step=3, split="held_out", values={"loss": None}))
    await job.report(DONE)

    frames = await read(remote, f"{job.path}/metrics")
    assert [frame.event for frame in frames] == ["metric"] * 4 + ["end"]
    assert numbers(await read(remote, f"{job.path}/metrics", {"Last-Event-ID": "2"})) == [3, 4]
    [held_out, _] = await read(remote, f"{job.path}/metrics?split=held_out")
    assert (held_out.data["step"], held_out.data["values"]) == (3, {"loss": None})


async def test_pages_of_metrics_leave_out_what_a_resumed_attempt_replaced(
    client: httpx.AsyncClient, job: Running
) -> None:
    await job.report(*(MetricsReport(step=step, values={"loss": 1.0}) for step in (0, 1, 2)))
    await job.report(*(MetricsReport(step=step, values={"loss": 2.0}) for step in (1, 2, 3)))
    await job.report(MetricsReport(step=2, split="held_out", values={"loss": 3.0}))

    page = (await client.get(f"{job.path}/metrics", params={"split": "train", "limit": 3})).json()
    rest = (await client.get(f"{job.path}/metrics", params={"after": page["next_after"]})).json()
    assert [(one["number"], one["step"], one["values"]["loss"]) for one in page["data"]] == [
        (1, 0, 1.0),
        (4, 1, 2.0),
        (5, 2, 2.0),
    ]
    assert [(one["number"], one["split"]) for one in rest["data"]] == [(6, "train"), (7, "held_out")]
    assert rest["next_after"] is None


async def test_a_curve_is_the_whole_run_in_as_many_points_as_asked_for(
    client: httpx.AsyncClient, job: Running, bob: dict[str, str]
) -> None:
    await job.report(*(MetricsReport(step=step, values={"loss": float(step)}) for step in range(1, 9)))
    path = f"{job.path}/metrics/curve"
    points = (await client.get(path, params={"points": 2})).json()["data"]
    assert [(point["last_step"], point["mean"]["loss"], point["high"]["loss"]) for point in points] == [
        (4, 2.5, 4.0),
        (8, 6.5, 8.0),
    ]
    assert len((await client.get(path)).json()["data"]) == 8
    problem(await client.get(path, params={"points": 0}), 422, "invalid_request")
    problem(await client.get(path, headers=bob), 404, "not_found")


async def test_pages_of_events_hold_each_once(client: httpx.AsyncClient, job: Running) -> None:
    await job.events(5)
    seen: list[int] = []
    after = 0
    while True:
        page = (await client.get(f"{job.path}/events", params={"after": after, "limit": 3})).json()
        seen += [event["number"] for event in page["data"]]
        if page["next_after"] is None:
            break
        after = page["next_after"]
    assert seen == list(range(1, 8))


async def test_a_reader_that_goes_away_ends_its_polling(
    server: Server, ada: dict[str, str], job: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    follow = sse.follow

    async def observed(*args: Any, **kwargs: Any) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(follow(*args, **kwargs)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            ended.set()

    monkeypatch.setattr(sse, "follow", observed)
    async with (
        httpx.AsyncClient(base_url=server.url, headers=ada) as remote,
        remote.stream("GET", f"{job.path}/events", headers=STREAM) as response,
    ):
        await anext(aiter(FrameReader(response)))
        assert not ended.is_set()
    await until(ended.is_set)


async def test_a_quiet_stream_is_kept_alive(
    server: Server, ada: dict[str, str], job: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.sse.KEEP_ALIVE_S", 0.01)
    async with (
        httpx.AsyncClient(base_url=server.url, headers=ada) as remote,
        remote.stream("GET", f"{job.path}/events", headers=STREAM) as response,
    ):
        async for line in response.aiter_lines():
            if line == ": keep-alive":
                break


@pytest.mark.parametrize("log", ["events", "metrics"])
async def test_a_replay_says_what_retention_has_removed_and_goes_on_with_the_numbers(
    remote: httpx.AsyncClient, database: Database, settings: Settings, job: Running, log: str
) -> None:
    await job.report(*(MetricsReport(step=step, values={"loss": 1.0}) for step in range(4)))
    await job.report(DONE)
    async with database.transaction() as session:
        for table in (tables.Event, tables.Metric):
            await session.execute(delete(table).where(table.number <= 2))
        await session.execute(update(Job).values(events_removed_to=2, metrics_removed_to=2))

    frames = [frame for frame in await read(remote, f"{job.path}/{log}") if frame.event != "job"]
    assert (frames[0].event, frames[0].id, frames[0].data) == ("removed", 2, {"to": 2, "reason": "retention"})
    assert numbers(frames)[:2] == [2, 3]
    assert (await remote.get(f"{job.path}/{log}")).json()["removed_to"] == 2
    for after in (1, 2):
        frames = await read(remote, f"{job.path}/{log}", {"Last-Event-ID": str(after)})
        assert [frame.id for frame in frames if frame.event == "removed"] == [2] * (after < 2)
