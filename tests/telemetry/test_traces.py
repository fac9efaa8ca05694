"""Traces as a collector receives them: OTLP over HTTP, from the application to a server of this test."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.db.session import Database
from service.jobs import attempts
from service.jobs.tokens import attempt_token
from service.settings import Settings
from service.telemetry import traces
from tests.service.conftest import add_job

ROOT = Path(__file__).parents[2]


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The spans that have come; all are there after `traces.shut_down`."""
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv(traces.ENDPOINT, f"http://127.0.0.1:{server.server_port}")
    traces.configure("plumbline-test")
    yield spans
    traces.shut_down()
    server.shutdown()
    server.server_close()
    thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {
        one.key: one.value.int_value if one.value.HasField("int_value") else one.value.string_value
        for one in span.attributes
    }


async def test_a_request_is_a_span_of_its_callers_trace(client: httpx.AsyncClient, collected: list[Any]) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.get("/v1/jobs/job-" + "0" * 21, headers={"traceparent": caller})
    await client.get("/healthz")
    traces.shut_down()
    (span,) = collected
    assert span.name == "GET /v1/jobs/{job_id}"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (caller[3:35], caller[36:52])
    assert attributes(span)["http.response.status_code"] == 404


async def test_a_jobs_stages_are_spans_of_one_trace_that_its_attempt_is_told(
    client: httpx.AsyncClient, database: Database, settings: Settings, collected: list[Any]
) -> None:
    async with database.transaction() as session:
        job = await add_job(session)
        attempt_id = (await attempts.start_attempt(session, job)).id
    told = traces.traceparent(job.id)
    assert told is not None
    headers = {"Authorization": f"Bearer {attempt_token(settings, attempt_id)}"}
    done = {"kind": "event", "type": "stage.completed", "message": "m"}
    reports = [
        done | {"stage": "prepare", "data": {"seconds": 2.5}},
        done | {"stage": "train", "data": {"seconds": 60}},
        {"kind": "outcome", "result": "succeeded"},
    ]
    url = f"/internal/attempts/{attempt_id}/reports"
    for _ in range(2):
        await client.post(url, json={"first_seq": 1, "reports": reports}, headers=headers)
    traces.shut_down()

    by_name = {span.name: span for span in collected}
    assert sorted(span.name for span in collected) == ["job", "prepare", "queued", "train"]
    whole = by_name.pop("job")
    assert told == f"00-{whole.trace_id.hex()}-{whole.span_id.hex()}-01"
    assert whole.parent_span_id == b""
    assert attributes(whole) == {"plumbline.job.id": job.id, "plumbline.job.state": "succeeded"}
    assert {span.trace_id for span in by_name.values()} == {whole.trace_id}
    assert {span.parent_span_id for span in by_name.values()} == {whole.span_id}
    train = by_name["train"]
    assert train.end_time_unix_nano - train.start_time_unix_nano == 60 * 10**9
    assert attributes(train)["plumbline.attempt.number"] == 1


async def test_without_an_endpoint_nothing_is_traced(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(traces.ENDPOINT, raising=False)
    traces.configure("plumbline-test")
    assert traces.traceparent("job-1") is None
    assert (await client.get("/v1/jobs")).status_code == 200


def test_an_endpoint_without_the_extra_is_said_and_the_extra_is_not_needed_otherwise() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from service.telemetry import traces; from service.errors import ServiceError\n"
        "traces.configure('x'); assert traces.traceparent('job-1') is None\n"
        "import os; os.environ[traces.ENDPOINT] = 'http://127.0.0.1:9'\n"
        "try: traces.configure('x')\n"
        "except ServiceError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, cwd=ROOT, check=False)
    assert (
        done.stdout
        == "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: plumbline[otel] has it.\n"
    )
