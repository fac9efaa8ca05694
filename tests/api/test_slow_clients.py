"""Clients that take their time: to send a request, to send its body, to read the answer, or with very many streams."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from api.app import create_app
from api.http_server import BoundedProtocol, http_server
from api.slow_bodies import Pace
from service.db.session import Database
from service.settings import Settings
from tests.api.conftest import PAIR, Server, problem, serve, until
from tests.service.conftest import add_job

PATIENCE_S = 20


class Impatient(BoundedProtocol):
    headers_s = 0.3
    max_headers = 4096
    unread_s = 0.3


@pytest.fixture
def impatient(settings: Settings, ada: dict[str, str]) -> Iterator[Server]:
    yield from serve(create_app(settings.model_copy(update={"body_silence_s": 0.3, "max_streams": 2})), Impatient)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def everything_from(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def send_until_cut_off(connection: socket.socket, piece: bytes) -> None:
    try:
        while True:  # for ever, or until the test's time is up
            connection.sendall(piece)
    except (ConnectionResetError, BrokenPipeError):
        return


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_headers_that_do_not_come_end_the_connection(impatient: Server, sent: bytes) -> None:
    with closing(connect(impatient)) as connection:
        connection.sendall(sent)
        assert everything_from(connection) == b""


def test_headers_that_do_not_come_after_an_answer_end_the_connection(impatient: Server) -> None:
    with closing(connect(impatient)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"alive" in connection.recv(65536)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        assert b"HTTP/1.1" not in everything_from(connection)


def test_an_idle_connection_outlives_the_time_for_headers_and_is_used_again(impatient: Server) -> None:
    with closing(connect(impatient)) as connection, closing(connect(impatient)) as silent:
        for _ in range(2):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"alive" in connection.recv(65536)
            if silent.fileno() >= 0:
                assert everything_from(silent) == b""  # cut off, and with it the time for headers is over for both
                silent.close()


def test_clients_close_idle_connections_before_the_server_does() -> None:
    kept_s = httpx.Limits().keepalive_expiry
    assert kept_s is not None
    assert http_server(FastAPI(), host="127.0.0.1", port=0).config.timeout_keep_alive >= 10 * kept_s


@pytest.mark.parametrize("piece", [b"x" * 1000, b"x: y\r\n" * 100])
def test_headers_without_end_are_cut_off(impatient: Server, piece: bytes) -> None:
    with closing(connect(impatient)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ")
        send_until_cut_off(connection, piece)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/files"])
def test_a_body_that_stalls_gets_408_and_leaves_nothing(
    impatient: Server, ada: dict[str, str], settings: Settings, path: str
) -> None:
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PAIR
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {ada['Authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000\r\n\r\n"
    )
    with closing(connect(impatient)) as connection:
        connection.sendall(head.encode() + start)
        answer = everything_from(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"too_slow"' in answer
    assert [path for path in settings.storage_root.rglob("*") if path.is_file()] == []
    assert httpx.get(f"{impatient.url}/v1/files", headers=ada).json()["data"] == []


def test_a_body_that_trickles_is_too_slow_although_it_never_stalls() -> None:
    pace = Pace(silence_s=30, grace_s=30, bytes_per_s=1000)
    assert pace.patience_s(waited_s=0, received=0) == 30
    assert pace.patience_s(waited_s=29, received=29) < 2
    assert pace.patience_s(waited_s=31, received=31) < 0
    assert pace.patience_s(waited_s=1000, received=2_000_000) == 30


def test_a_stranger_who_keeps_sending_is_answered_and_then_cut_off(impatient: Server) -> None:
    with closing(connect(impatient)) as connection:
        connection.sendall(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")
        send_until_cut_off(connection, b"x" * 1000)


async def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    ended: list[bool] = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await receive()

        async def note_end() -> None:
            assert (await receive())["type"] == "http.disconnect"
            ended.append(True)

        noting = asyncio.create_task(note_end())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not ended:
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
            await asyncio.sleep(0)
        await noting

    for server in serve(endless, Impatient):
        with closing(connect(server)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: bool(ended))


async def test_a_project_has_so_many_streams_open_and_no_more(
    impatient: Server, ada: dict[str, str], bob: dict[str, str], database: Database
) -> None:
    async with database.transaction() as session:
        jobs = {name: (await add_job(session, project_id=name)).id for name in ("ada", "bob")}

    def open_stream(
        stack: ExitStack,
        headers: dict[str, str],
        job_id: str,
        what: str = "events",
        accept: str = "text/event-stream",
    ) -> httpx.Response:
        asked = client.stream("GET", f"/v1/jobs/{job_id}/{what}", headers=headers | {"Accept": accept})
        return stack.enter_context(asked)

    with httpx.Client(base_url=impatient.url, timeout=PATIENCE_S) as client, ExitStack() as others:
        with ExitStack() as first:
            assert open_stream(first, ada, jobs["ada"]).status_code == 200
            assert open_stream(others, ada, jobs["ada"], "metrics").status_code == 200
            refused = open_stream(others, ada, jobs["ada"])
            refused.read()
            assert problem(refused, 429, "too_many_streams")["detail"].startswith("2 event streams")
            assert refused.headers["Retry-After"]
            assert open_stream(others, ada, jobs["ada"], accept="application/json").is_success  # a page is no stream
            assert open_stream(others, bob, jobs["bob"]).status_code == 200

        def again() -> bool:
            with ExitStack() as stack:
                return open_stream(stack, ada, jobs["ada"]).status_code == 200

        await until(again)
