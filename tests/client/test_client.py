"""Both clients against a real API."""

import asyncio
import inspect
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import plumbline
from api.app import create_app
from api.cli.control_plane import ControlPlane
from api.cli.processes import free_port
from api.client import ApiError, AsyncClient, Client, NotPlumbline, Unreachable
from api.client.call import Call, Operation, Resource, StreamCall, Streaming
from api.client.exchange import Tries
from api.client.sse import Frame, FrameParser
from api.views import EventView, JobView
from service.settings import Settings
from service.spec import AlignmentJob
from tests.cli.conftest import ROW

SIGNING_IN_AND_OUT = {("POST", "/v1/session"), ("DELETE", "/v1/session")}  # of browsers: a client sends its key
OPENAI = re.compile(
    r"/v1/(fine_tuning|models(?!/{name}/)|chat|completions|uploads)\b"
)  # its own package is their client


def submitted(client: Client, settings: Settings, directory: Path) -> str:
    (directory / "pairs.jsonl").write_text(ROW)
    file = client.files.upload(directory / "pairs.jsonl")
    assert client.files.content(file.id) == ROW.encode()
    return client.jobs.create({"model": str(settings.home / "tiny"), "data": {"train": file.id}}).id


def test_following_a_job_numbers_every_event(client: Client, control_plane: Settings, tmp_path: Path) -> None:
    job_id = submitted(client, control_plane, tmp_path)
    client.jobs.cancel(job_id)
    numbers = []
    for news in client.jobs.events(job_id, patience_s=10):
        if isinstance(news, EventView):
            numbers.append(news.number)
        elif news.state in {"cancelling", "cancelled"}:
            break  # the Ray that would let go of it is not there
    assert numbers == list(range(1, len(numbers) + 1))
    stored = client.jobs.list_events(job_id).data
    assert [event.number for event in stored][: len(numbers)] == numbers


def test_a_stream_goes_on_over_a_restart_of_the_api(client: Client, control_plane: Settings, tmp_path: Path) -> None:
    settings = control_plane.model_copy(update={"port": free_port(), "stream_lifetime_s": 1})
    first = ControlPlane(settings)
    first.start()
    with Client(settings.public_url, (settings.home / "api-key").read_text()) as other:
        job_id = submitted(other, settings, tmp_path)
        news = other.jobs.events(job_id, patience_s=30)
        seen = [next(one for one in news if isinstance(one, EventView))]
        first.stop()
        second = ControlPlane(settings)
        second.start()
        client.jobs.cancel(job_id)
        seen += [next(one for one in news if isinstance(one, EventView))]
        second.stop()
    assert [event.number for event in seen] == [1, 2]


async def test_the_async_client_does_the_same(control_plane: Settings, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(ROW)
    key = (control_plane.home / "api-key").read_text()
    async with AsyncClient(control_plane.public_url, key) as client:
        file = await client.files.upload(tmp_path / "pairs.jsonl")
        spec = AlignmentJob.model_validate({"model": str(control_plane.home / "tiny"), "data": {"train": file.id}})
        first, again = await asyncio.gather(*(client.jobs.create(spec, idempotency_key="async-once") for _ in range(2)))
        assert first.id == again.id
        async for news in client.jobs.events(first.id):
            if isinstance(news, JobView):
                assert news.id == first.id
                break
        assert (await client.jobs.cancel(first.id)).state in {"cancelled", "cancelling"}
        with pytest.raises(ApiError, match="not_found"):
            await client.jobs.get("job-" + "0" * 21)


def test_an_api_that_stays_away_is_unreachable() -> None:
    with Client("http://127.0.0.1:9", "pk-x", max_retries=0) as client:
        with pytest.raises(Unreachable):
            client.jobs.list()
        with pytest.raises(Unreachable):
            next(client.jobs.events("job-1", patience_s=0))


def test_problems_carry_status_code_and_fields(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.jobs.create({"model": "/nowhere", "colour": "blue"})
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
    assert "colour" in str(caught.value)


class Elsewhere(BaseHTTPRequestHandler):
    """Some other server, whose streams have frames of their own."""

    def do_GET(self) -> None:
        stream = "event-stream" in self.headers["Accept"]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'event: job\ndata: {"id": 1}\n\n' if stream else b"<html></html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_something_else_at_the_address_is_named() -> None:
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_port}", "pk-x") as client:
            with pytest.raises(NotPlumbline):
                client.jobs.list()
            with pytest.raises(NotPlumbline):
                next(client.jobs.events("job-1"))
        server.shutdown()


def test_url_and_key_come_from_the_environment_or_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_URL", raising=False)
    monkeypatch.setenv("PLUMBLINE_API_KEY", "pk-x")
    with pytest.raises(plumbline.PlumblineError, match="PLUMBLINE_URL"):
        Client()
    monkeypatch.setenv("PLUMBLINE_URL", "http://127.0.0.1:9/")
    assert Client().url == "http://127.0.0.1:9"


def response(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request("POST", "http://x"))


@pytest.mark.parametrize("outcome", [response(503), httpx.ReadError("cut off"), httpx.ReadTimeout("late")])
def test_only_what_may_be_repeated_is_sent_again(outcome: Any) -> None:
    assert Tries(Call("POST", "/x", bytes), 2).wait_s(outcome) is None
    again = Tries(Call("POST", "/x", bytes, repeatable=True), 2)
    assert [again.wait_s(outcome) is None for _ in range(3)] == [False, False, True]


def test_what_was_not_taken_is_sent_again_when_the_server_says() -> None:
    tries = Tries(Call("POST", "/x", bytes), 2)
    assert tries.wait_s(response(429, **{"Retry-After": "7"})) == 7
    assert tries.wait_s(httpx.ConnectError("nobody")) is not None
    assert Tries(Call("GET", "/x", bytes, repeatable=True), 2).wait_s(response(404)) is None


def test_frames_are_read_with_comments_ids_and_several_lines() -> None:
    text = ': hello\n\nid: 7\nevent: event\ndata: {"a":\ndata: 1}\n\nevent: end\n\ndata: 2\n\ndata: cut off'
    parser = FrameParser()
    assert [frame for line in text.split("\n") if (frame := parser.feed(line))] == [
        Frame("event", {"a": 1}, 7),
        Frame("end", None),
        Frame("message", 2),
    ]


def operations(client: Client) -> Iterator[Call[Any] | StreamCall[Any]]:
    """What every operation asks for, its arguments made up."""
    for name in dir(client):
        resource = getattr(client, name)
        for operation in vars(type(resource)).values() if isinstance(resource, Resource) else ():
            if isinstance(operation, Operation | Streaming):
                required = [
                    {} if "Mapping" in str(one.annotation) else "x"
                    for one in inspect.signature(operation.build).parameters.values()
                    if one.default is one.empty
                ]
                yield operation.build(*required)


def test_every_route_has_an_operation() -> None:
    routes = {
        (method.upper(), path)
        for path, methods in create_app(Settings(secret="s")).openapi()["paths"].items()
        for method in methods
        if path.startswith("/v1/") and not OPENAI.match(path)
    }
    with Client("http://x", "pk-x") as client:
        asked = [(call.method, call.path) for call in operations(client)]
    known = {
        route
        for route in routes
        for method, path in asked
        if method == route[0] and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route[1]), path)
    }
    assert routes - known == SIGNING_IN_AND_OUT
