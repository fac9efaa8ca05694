"""The application on a real database: in process for plain things, over a socket for streams and broken bodies."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import http_server
from api.app import create_app
from api.http_server import BoundedProtocol
from service.db.session import Database
from service.keys.service import create_key
from service.settings import Settings
from tests.service.conftest import make_model

PAIR = b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n'


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        secret="a secret of this test",
        max_upload_bytes=100_000,
        max_body_bytes=20_000,
        stream_lifetime_s=60,
        max_attempts=2,
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.sqlalchemy_url)
    yield database
    await database.close()


async def key_of(database: Database, project_id: str) -> dict[str, str]:
    """Headers of a new key."""
    async with database.transaction() as session:
        _, key = await create_key(session, project_id=project_id, name="test")
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def ada(database: Database) -> dict[str, str]:
    return await key_of(database, "ada")


@pytest.fixture
async def bob(database: Database) -> dict[str, str]:
    return await key_of(database, "bob")


@pytest.fixture
async def client(settings: Settings, ada: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Ada's client, in process."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", headers=ada) as client,
    ):
        yield client


@pytest.fixture
async def body(client: httpx.AsyncClient, settings: Settings) -> dict[str, Any]:
    """A job that would be accepted."""
    model = make_model(settings.storage_root / "models" / "tiny")
    file = (await client.post("/v1/files", files={"file": ("pairs.jsonl", PAIR)})).json()
    return {"model": str(model), "data": {"train": file["id"]}}


@dataclass
class Server:
    """The application in a thread of its own, behind a real socket."""

    port: int
    http: http_server.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def leave(self) -> None:
        """As on SIGTERM."""
        self.http.should_exit = True


def serve(
    app: Any, protocol: type[BoundedProtocol] = BoundedProtocol, *, graceful_shutdown_s: int = 1
) -> Iterator[Server]:
    server = http_server.http_server(
        app,
        host="127.0.0.1",
        port=0,
        protocol=protocol,
        leaving=getattr(getattr(app, "state", None), "leaving", None),
        graceful_shutdown_s=graceful_shutdown_s,
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    running = Server(listener.getsockname()[1], server)
    yield running
    running.leave()
    thread.join()
    listener.close()


@pytest.fixture
def server(settings: Settings, ada: dict[str, str]) -> Iterator[Server]:
    yield from serve(create_app(settings))


@dataclass
class Frame:
    event: str
    data: Any
    id: int | None = None


@dataclass
class FrameReader:
    """Frames of an open event stream, one at a time."""

    response: httpx.Response
    comments: list[str] = field(default_factory=list)

    async def __aiter__(self) -> AsyncIterator[Frame]:
        fields: dict[str, str] = {}
        async for line in self.response.aiter_lines():
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                fields[name] = value
            elif fields:
                number = int(fields["id"]) if "id" in fields else None
                yield Frame(fields["event"], json.loads(fields["data"]), number)
                fields = {}


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that `response` must be."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    answer: dict[str, Any] = response.json()
    assert (response.status_code, answer["status"], answer["code"]) == (status, status, code), answer
    assert answer["type"] == f"urn:plumbline:problem:{code}"
    assert answer["title"]
    assert answer["detail"]
    assert answer.pop("request_id") == response.headers["x-request-id"]
    return answer


async def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does; a test that waits in vain fails."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - there is no event to wait for across threads
            await asyncio.sleep(0.01)
