from typing import Any

import httpx
import pytest

from service.db.session import Database
from service.db.tables import Attempt
from service.jobs import attempts
from service.jobs.tokens import attempt_token
from service.settings import Settings
from tests.api.conftest import problem
from tests.service.conftest import add_job

EVENT = {"kind": "event", "type": "data.prepared", "message": "ready"}


@pytest.fixture
async def attempt(database: Database) -> Attempt:
    async with database.transaction() as session:
        return await attempts.start_attempt(session, await add_job(session))


@pytest.fixture
def token(attempt: Attempt, settings: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {attempt_token(settings, attempt.id)}"}


def batch(first_seq: int, *reports: dict[str, Any]) -> dict[str, Any]:
    return {"first_seq": first_seq, "reports": list(reports)}


async def test_an_attempt_is_told_what_to_do_and_reports_until_its_end(
    client: httpx.AsyncClient, attempt: Attempt, token: dict[str, str]
) -> None:
    path = f"/internal/attempts/{attempt.id}"
    brief = (await client.get(path, headers=token)).json()
    assert (brief["attempt_id"], brief["job_id"]) == (attempt.id, attempt.job_id)

    ack = await client.post(f"{path}/reports", json=batch(1, EVENT), headers=token)
    assert ack.json() == {"last_seq": 1, "cancel": False, "pause": False}
    outcome = {"kind": "outcome", "result": "succeeded"}
    await client.post(f"{path}/reports", json=batch(2, outcome), headers=token)
    assert (await client.get(f"/v1/jobs/{attempt.job_id}")).json()["state"] == "succeeded"
    problem(await client.post(f"{path}/reports", json=batch(3, EVENT), headers=token), 409, "attempt_superseded")
    problem(await client.get(path, headers=token), 409, "attempt_superseded")


async def test_a_gap_is_answered_with_where_to_go_on(
    client: httpx.AsyncClient, attempt: Attempt, token: dict[str, str]
) -> None:
    answer = await client.post(f"/internal/attempts/{attempt.id}/reports", json=batch(5, EVENT), headers=token)
    assert problem(answer, 409, "report_gap")["expected_seq"] == 1


async def test_nothing_but_the_attempts_own_token_opens(
    client: httpx.AsyncClient, database: Database, attempt: Attempt, token: dict[str, str], ada: dict[str, str]
) -> None:
    async with database.transaction() as session:
        other = await attempts.start_attempt(session, await add_job(session))
    path = f"/internal/attempts/{other.id}"
    for headers in (token, ada, {"Authorization": "Bearer x"}, {"Authorization": ""}):
        problem(await client.get(path, headers=headers), 401, "unauthorized")
        problem(await client.post(f"{path}/reports", json=batch(1), headers=headers), 401, "unauthorized")
    problem(await client.get("/v1/jobs", headers=token), 401, "unauthorized")


async def test_a_batch_larger_than_a_clients_body_is_taken(
    client: httpx.AsyncClient, attempt: Attempt, token: dict[str, str]
) -> None:
    long = EVENT | {"message": "x" * 1000}
    path = f"/internal/attempts/{attempt.id}/reports"
    assert (await client.post(path, json=batch(1, *[long] * 500), headers=token)).json()["last_seq"] == 500
    problem(await client.post(path, json=batch(501, *[EVENT] * 1001), headers=token), 422, "invalid_request")


async def test_what_a_log_may_hold_is_stored_so_that_it_can_be_shown(
    client: httpx.AsyncClient, attempt: Attempt, token: dict[str, str]
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"deeper": deep}
    hostile = EVENT | {"message": "a\0b", "data": {"deep": deep, "nul": "\0", "huge": 10**30, "none": None}}
    content = httpx.Request("POST", "http://x", json=batch(1, hostile)).content.replace(b'"none":null', b'"n":NaN')
    answer = await client.post(
        f"/internal/attempts/{attempt.id}/reports",
        content=content.replace(b'"nul":"', b'"nul":"\\ud800'),
        headers=token | {"Content-Type": "application/json"},
    )
    assert answer.json()["last_seq"] == 1

    events = (await client.get(f"/v1/jobs/{attempt.job_id}/events")).json()["data"]
    assert events[-1]["message"] == "a\N{REPLACEMENT CHARACTER}b"
    assert events[-1]["data"]["nul"] == "?\N{REPLACEMENT CHARACTER}"
    assert events[-1]["data"]["n"] is None
    assert events[-1]["data"]["huge"] == 10**30
