"""Reports reach the API once and in order, whatever happens on the way. The API here is a real HTTP server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service.spec.reports import EventReport
from service.spec.stages import Stage
from workers.reporting import Reporter


class Api:
    """Takes reports as the real API does; `answers` overrides the status of the next ones."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.lose_answer = 0
        self.cancel = False
        self.pause = False
        self.beat = threading.Event()

    def take(self, batch: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.answers:
            return self.answers.pop(0), {}
        if not batch["reports"]:
            self.beat.set()
        assert batch["first_seq"] <= len(self.taken) + 1
        self.taken += batch["reports"][len(self.taken) + 1 - batch["first_seq"] :]
        return 200, {"last_seq": len(self.taken), "cancel": self.cancel, "pause": self.pause}


@contextmanager
def serve(api: Api, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Authorization"] == "Bearer token"
            status, answer = api.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if api.lose_answer:
                api.lose_answer -= 1
                self.close_connection = True
                return
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reporter(port: int, stopped: threading.Event | None = None) -> Reporter:
    stop = stopped or threading.Event()
    return Reporter(f"http://127.0.0.1:{port}", "attempt", "token", on_stop=stop.set)


def say(reporter: Reporter, count: int) -> list[str]:
    messages = [f"message {i}" for i in range(count)]
    for message in messages:
        reporter.put(EventReport(type="stage.started", stage=Stage.TRAIN, message=message))
    return messages


def taken(api: Api) -> list[str]:
    return [report["message"] for report in api.taken]


def test_everything_is_delivered_in_order_before_the_block_ends() -> None:
    api = Api()
    with serve(api) as server:
        with reporter(server.server_port) as reports:
            messages = say(reports, 1200)  # more than one batch
        assert taken(api) == messages


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_api_that_cannot_answer_now_is_asked_again(status: int) -> None:
    api = Api()
    api.answers = [status, status]
    with serve(api) as server:
        with reporter(server.server_port) as reports:
            messages = say(reports, 3)
        assert taken(api) == messages


def test_a_lost_answer_does_not_double_a_report() -> None:
    api = Api()
    api.lose_answer = 1
    with serve(api) as server:
        with reporter(server.server_port) as reports:
            messages = say(reports, 5)
        assert taken(api) == messages


def test_reports_wait_for_an_api_that_is_away() -> None:
    api = Api()
    with serve(api) as server:
        port = server.server_port
    with reporter(port) as reports:  # nothing listens now
        messages = say(reports, 5)
        with serve(api, port):
            reports.close()
    assert taken(api) == messages


def test_a_cancel_in_the_acknowledgement_stops_the_attempt() -> None:
    api, stopped = Api(), threading.Event()
    api.cancel = True
    with serve(api) as server, reporter(server.server_port, stopped) as reports:
        say(reports, 1)
        assert stopped.wait(30)
        assert reports.cancelled.is_set()


def test_a_pause_is_heard_once_and_a_cancel_after_it_too() -> None:
    api, heard = Api(), threading.Semaphore(0)
    api.pause = True
    with (
        serve(api) as server,
        Reporter(f"http://127.0.0.1:{server.server_port}", "a", "token", on_stop=heard.release) as it,
    ):
        say(it, 1)
        assert heard.acquire(timeout=30)
        assert (it.paused.is_set(), it.cancelled.is_set()) == (True, False)
        say(it, 1)
        api.cancel = True
        say(it, 1)
        assert heard.acquire(timeout=30)
        assert it.cancelled.is_set()
    assert not heard.acquire(blocking=False)


def test_an_attempt_whose_reports_are_refused_stops_and_sends_no_more() -> None:
    api, stopped = Api(), threading.Event()
    api.answers = [409]
    with serve(api) as server:
        with reporter(server.server_port, stopped) as reports:
            say(reports, 1)
            assert stopped.wait(30)
            assert reports.refused.is_set()
        assert api.taken == []


def test_silence_is_filled_with_heartbeats() -> None:
    api = Api()
    with serve(api) as server, reporter(server.server_port):
        assert api.beat.wait(30)
