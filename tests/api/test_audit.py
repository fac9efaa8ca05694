"""What requests leave in the audit log."""

from typing import Any

import httpx
import pytest

from service import audit
from service.db.session import Database
from service.errors import InvalidState
from service.keys.roles import Role
from service.keys.service import create_key


@pytest.fixture
async def auditor(database: Database) -> dict[str, str]:
    async with database.transaction() as session:
        _, key = await create_key(session, project_id="ada", name="", role=Role.ADMIN)
    return {"Authorization": f"Bearer {key}"}


async def log_of(client: httpx.AsyncClient, auditor: dict[str, str]) -> list[tuple[str, str | None, str]]:
    """(action, target, outcome), oldest first."""
    entries = (await client.get("/v1/audit", headers=auditor)).json()["data"]
    assert all(entry["request_id"] and entry["key_id"] for entry in entries)
    return [(entry["action"], entry["target"], entry["outcome"]) for entry in reversed(entries)]


async def test_what_was_done_and_what_was_refused(
    client: httpx.AsyncClient, body: dict[str, Any], auditor: dict[str, str]
) -> None:
    job = (await client.post("/v1/jobs", json=body)).json()
    await client.get("/v1/jobs")
    await client.post(f"/v1/jobs/{job['id']}/cancel")
    await client.post("/v1/jobs/nope/cancel")
    await client.post("/v1/jobs", json={"model": 1})
    await client.post("/v1/keys", json={})
    assert await log_of(client, auditor) == [
        ("POST /v1/files", body["data"]["train"], "ok"),
        ("POST /v1/jobs", job["id"], "ok"),
        ("POST /v1/jobs/{job_id}/cancel", job["id"], "ok"),
        ("POST /v1/jobs/{job_id}/cancel", "nope", "not_found"),
        ("POST /v1/jobs", None, "invalid_request"),
        ("POST /v1/keys", None, "forbidden"),
    ]


async def test_a_repeated_request_is_no_second_change(
    client: httpx.AsyncClient, body: dict[str, Any], auditor: dict[str, str]
) -> None:
    for _ in range(2):
        await client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"})
    made = [target for action, target, _ in await log_of(client, auditor) if action == "POST /v1/jobs"]
    assert len([target for target in made if target is not None]) == 1


async def test_keys_are_logged_by_their_ids(client: httpx.AsyncClient, auditor: dict[str, str]) -> None:
    made = (await client.post("/v1/keys", json={"name": "laptop"}, headers=auditor)).json()
    answer = await client.get("/v1/audit", headers=auditor)
    assert made["id"] in answer.text
    assert made["key"] not in answer.text
    assert auditor["Authorization"].removeprefix("Bearer ") not in answer.text


async def test_pages_go_back_to_the_first_entry(client: httpx.AsyncClient, auditor: dict[str, str]) -> None:
    for number in range(5):
        await client.post(f"/v1/jobs/{number}/cancel")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/v1/audit", params={"limit": "2"} | cursor, headers=auditor)).json()
        seen += [entry["target"] for entry in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ["4", "3", "2", "1", "0"]
    assert (await client.get("/v1/audit", params={"cursor": "x"}, headers=auditor)).status_code == 422


async def test_a_change_that_is_rolled_back_leaves_no_entry(database: Database) -> None:
    with audit.begin(audit.Act("POST /v1/jobs", project_id="ada", key_id="key-1")):
        with pytest.raises(InvalidState):
            await _fail_after_recording(database)
        async with database.reading() as session:
            assert await audit.page(session, "ada", limit=10, cursor=None) == ([], None)


async def _fail_after_recording(database: Database) -> None:
    async with database.transaction() as session:
        await audit.record(session, "job-1")
        raise InvalidState("no")


async def test_a_question_to_a_model_leaves_an_entry_only_if_it_is_refused(
    client: httpx.AsyncClient, database: Database
) -> None:
    await client.post("/v1/completions", json={"model": "job:none", "prompt": "Hello"})
    async with database.reading() as session:
        entries, _ = await audit.page(session, "ada", limit=10, cursor=None)
    assert [(one.action, one.outcome) for one in entries] == [("POST /v1/completions", "not_found")]


async def test_what_a_form_asks_while_it_is_filled_in_leaves_no_entry(
    client: httpx.AsyncClient, body: dict[str, Any], auditor: dict[str, str]
) -> None:
    for path, asked in (
        ("/v1/jobs?dry_run=true", body),
        ("/v1/schema/job/snippets", body),
        ("/v1/losses/curves", {"losses": [{"type": "sigmoid"}]}),
        ("/v1/data-previews", {"data": body["data"]}),
    ):
        assert (await client.post(path, json=asked)).is_success, path
    assert await log_of(client, auditor) == [("POST /v1/files", body["data"]["train"], "ok")]
