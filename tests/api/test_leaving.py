"""A replica that is told to end: what is open is handed over or brought to its end."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from api.app import create_app
from service.db.session import Database
from service.db.tables import Job
from service.jobs.repository import JobRepository, append_event
from service.settings import Settings
from tests.api.conftest import PAIR, Frame, FrameReader, Server, serve, until
from tests.service.conftest import add_job

PATIENT = 600  # longer than anybody waits for a test: what is not ended on purpose fails it


@pytest.fixture
def leaving(settings: Settings, ada: dict[str, str]) -> Iterator[Server]:
    app = create_app(settings.model_copy(update={"stream_lifetime_s": PATIENT}))
    yield from serve(app, graceful_shutdown_s=PATIENT)


@pytest.fixture
async def job(database: Database) -> Job:
    async with database.transaction() as session:
        return await add_job(session, project_id="ada")


async def append(database: Database, job: Job, count: int) -> None:
    async with database.transaction() as session:
        stored = await JobRepository(session).get(job.id, lock=True)
        for _ in range(count):
            await append_event(session, stored, "data.prepared", "a message")


async def test_streams_are_told_to_reconnect_and_go_on_elsewhere_without_a_gap(
    leaving: Server, server: Server, ada: dict[str, str], database: Database, job: Job
) -> None:
    await append(database, job, 3)
    path = f"/v1/jobs/{job.id}/events"
    headers = ada | {"Accept": "text/event-stream"}
    frames: list[Frame] = []
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        async with client.stream("GET", f"{leaving.url}{path}") as stream:
            async for frame in FrameReader(stream):
                frames.append(frame)
                if frame.id == 3:  # nothing more to come: the stream waits
                    leaving.leave()
        assert frames[-1] == Frame("reconnect", {})
        await until(lambda: not listens(leaving))

        await append(database, job, 2)
        async with client.stream("GET", f"{server.url}{path}", headers={"Last-Event-ID": "3"}) as stream:
            async for frame in FrameReader(stream):
                frames.append(frame)
                if frame.id == 5:
                    break
    assert [frame.id for frame in frames if frame.id is not None] == [1, 2, 3, 4, 5]


async def test_every_stream_is_told_and_not_only_those_of_one_job(
    leaving: Server, ada: dict[str, str], database: Database, job: Job
) -> None:
    async with database.transaction() as session:
        other = await add_job(session, project_id="ada")
    paths = [f"/v1/jobs/{one.id}/{log}" for one in (job, other) for log in ("events", "metrics")] * 3
    opened = asyncio.Semaphore(0)

    async def read(client: httpx.AsyncClient, path: str) -> str:
        async with client.stream("GET", path) as stream:
            opened.release()
            return [frame.event async for frame in FrameReader(stream)][-1]

    headers = ada | {"Accept": "text/event-stream"}
    async with httpx.AsyncClient(base_url=leaving.url, headers=headers, timeout=60) as client:
        reading = [asyncio.create_task(read(client, path)) for path in paths]
        for _ in paths:
            await opened.acquire()
        leaving.leave()
        assert await asyncio.gather(*reading) == ["reconnect"] * len(paths)


async def test_an_upload_that_is_under_way_is_taken_to_its_end(leaving: Server, ada: dict[str, str]) -> None:
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="pairs.jsonl"\r\n\r\n'
    body = start + PAIR + b"\r\n--b--\r\n"
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {ada['Authorization']}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", leaving.port), timeout=60)) as connection:
        connection.sendall(head.encode())
        assert await asyncio.to_thread(connection.recv, 65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body[: len(start) + 10])
        leaving.leave()
        await until(lambda: not listens(leaving))
        connection.sendall(body[len(start) + 10 :])
        assert (await asyncio.to_thread(connection.recv, 65536)).startswith(b"HTTP/1.1 201")


def listens(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0
