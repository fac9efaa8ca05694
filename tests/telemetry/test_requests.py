"""Request IDs: from the client or from us, in the answer, in errors and in the log."""

import json
import logging
from collections.abc import Iterator

import httpx
import pytest

from service.settings import Settings
from service.telemetry.logs import formatter


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log(settings: Settings) -> Iterator[list[str]]:
    """The JSON lines that the process writes."""
    handler = Lines()
    handler.setFormatter(formatter(settings.model_copy(update={"log_format": "json"})))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


def line(log: list[str], message: str) -> dict[str, object]:
    found = [json.loads(one) for one in log]
    return next(one for one in found if one["message"] == message)


async def test_a_request_id_of_the_client_is_kept_everywhere(client: httpx.AsyncClient, log: list[str]) -> None:
    response = await client.get("/v1/jobs/job-" + "0" * 21, headers={"X-Request-Id": "mine-1"})
    assert response.headers["x-request-id"] == response.json()["request_id"] == "mine-1"
    told = line(log, "GET /v1/jobs/{job_id} 404")
    assert told["request_id"] == "mine-1"
    assert told["project_id"] == "ada"
    assert str(told["key_id"]).startswith("key-")
    assert told["job_id"] == "job-" + "0" * 21


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, 'x"}{"level":"error', "ü"])
async def test_a_request_id_that_is_none_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/healthz", headers={"X-Request-Id": given.encode()})
    assert response.headers["x-request-id"].startswith("req-")


async def test_an_error_in_openai_form_has_it_where_their_packages_look(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/fine_tuning/jobs/nothing", headers={"X-Request-Id": "mine-2"})
    assert response.headers["x-request-id"] == "mine-2"
    assert "request_id" not in response.json()["error"]


async def test_an_unexpected_error_has_it_and_so_has_its_traceback(
    client: httpx.AsyncClient, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("api.routes.jobs.JobRepository.page", fail)
    response = await client.get("/v1/jobs", headers={"X-Request-Id": "mine-3"})
    assert response.status_code == 500
    assert response.headers["x-request-id"] == response.json()["request_id"] == "mine-3"
    assert line(log, "GET /v1/jobs 500")["request_id"] == "mine-3"


async def test_a_body_that_is_too_large_is_answered_with_an_id(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/jobs", content=b"x" * 30_000, headers={"X-Request-Id": "mine-4"})
    assert response.status_code == 413
    assert response.headers["x-request-id"] == response.json()["request_id"] == "mine-4"


async def test_a_change_of_state_is_logged_with_its_job_once_it_is_committed(
    client: httpx.AsyncClient, body: dict[str, object], log: list[str]
) -> None:
    job = (await client.post("/v1/jobs", json=body)).json()
    await client.post(f"/v1/jobs/{job['id']}/cancel")
    told = line(log, "queued -> cancelled: Cancelled while it was queued.")
    assert (told["job_id"], told["project_id"], told["to_state"]) == (job["id"], "ada", "cancelled")
    assert str(told["request_id"]).startswith("req-")
