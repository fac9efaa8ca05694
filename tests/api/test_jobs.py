from typing import Any

import httpx
import pytest

from service.db.session import Database
from service.jobs.states import JobState
from service.settings import Settings
from tests.api.conftest import problem
from tests.databases import statements
from tests.service.conftest import add_job, make_model

NOBODYS = "job-" + "0" * 21


async def test_a_job_is_accepted_and_found_again(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await client.post("/v1/jobs", json=body | {"name": "courteous"})
    job = answer.json()

    assert answer.status_code == 201
    assert (job["object"], job["state"], job["name"], job["attempts"]) == ("job", "queued", "courteous", 0)
    assert job["created_at"].endswith("Z")
    assert job["spec"]["training"]["batch_size"] == 32
    found = (await client.get(f"/v1/jobs/{job['id']}")).json()
    page = (await client.get("/v1/jobs")).json()
    assert (len(page["data"]), page["next_cursor"]) == (1, None)
    for same in (found, page["data"][0]):  # but for its place, which is worked out when it is asked for
        assert same | {"waiting": None, "eta": None} == job
        assert same["waiting"]["code"] == "next"


async def test_a_repeated_key_is_answered_with_the_first_job(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    key = {"Idempotency-Key": "once"}
    first = await client.post("/v1/jobs", json=body, headers=key)
    again = await client.post("/v1/jobs", json=body, headers=key)

    assert again.status_code == 201
    assert again.json()["id"] == first.json()["id"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(await client.post("/v1/jobs", json=body | {"serve": False}, headers=key), 409, "idempotency_conflict")
    problem(await client.post("/v1/jobs", json=body, headers={"Idempotency-Key": ""}), 422, "invalid_request")


async def test_pages_hold_every_job_once(client: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        mine = [(await add_job(session)).id for _ in range(5)]
        await add_job(session, project_id="bob")

    seen: list[str] = []
    params: dict[str, str] = {"limit": "2"}
    while True:
        page = (await client.get("/v1/jobs", params=params)).json()
        seen += [job["id"] for job in page["data"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == sorted(mine, reverse=True)


async def test_jobs_are_listed_by_label(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    labels: list[dict[str, str]] = [{"team": "a", "x": "1=2"}, {"team": "a"}, {}]
    made = [(await client.post("/v1/jobs", json=body | {"metadata": one})).json()["id"] for one in labels]

    async def listed(*label: str) -> list[str]:
        return [job["id"] for job in (await client.get("/v1/jobs", params={"label": label})).json()["data"]]

    assert await listed("team=a") == made[1::-1]
    assert await listed("team=a", "x=1=2") == made[:1]
    assert await listed("team=b") == []
    for refused in ("team", "=a", "team=\0"):
        answer = await client.get("/v1/jobs", params={"label": refused})
        assert problem(answer, 422, "invalid_request")["field"] == "label"
    twice = await client.get("/v1/jobs", params={"label": ["team=a", "team=b"]})
    assert problem(twice, 422, "invalid_request")["field"] == "label"


async def test_a_submission_asks_the_database_no_more_than_it_needs_to(
    client: httpx.AsyncClient, database: Database, body: dict[str, Any]
) -> None:
    await client.post("/v1/jobs", json=body)  # reads the upload's rows, once
    with statements(database) as made:
        answer = await client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 201
    # Who asks; all that is known before; the upload held; job, event and audit, which PostgreSQL takes as one
    assert 0 < len(made) <= 6, made


async def test_jobs_are_listed_by_state(client: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        await add_job(session)
        done = await add_job(session, state=JobState.SUCCEEDED)
    page = (await client.get("/v1/jobs", params={"state": "succeeded"})).json()
    assert [job["id"] for job in page["data"]] == [done.id]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"state": "asleep"}, "state.0"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "\0"}, "cursor"),
    ],
)
async def test_a_page_that_cannot_be_names_its_parameter(
    client: httpx.AsyncClient, params: dict[str, str], field: str
) -> None:
    answer = problem(await client.get("/v1/jobs", params=params), 422, "invalid_request")
    assert field in (answer.get("field"), *(error["field"] for error in answer.get("errors", ())))


async def test_another_owners_job_is_not_there_in_any_way(
    client: httpx.AsyncClient, database: Database, bob: dict[str, str]
) -> None:
    async with database.transaction() as session:
        mine = (await add_job(session, state=JobState.SUCCEEDED)).id
    for method, path in [
        ("GET", ""),
        ("POST", "/cancel"),
        ("GET", "/events"),
        ("GET", "/metrics"),
        ("POST", "/deployment"),
        ("GET", "/deployment"),
        ("DELETE", "/deployment"),
    ]:
        theirs = await client.request(method, f"/v1/jobs/{mine}{path}", headers=bob)
        absent = await client.request(method, f"/v1/jobs/{NOBODYS}{path}", headers=bob)
        assert problem(theirs, 404, "not_found") == problem(absent, 404, "not_found")
    stream = {"Accept": "text/event-stream"} | bob
    problem(await client.get(f"/v1/jobs/{mine}/events", headers=stream), 404, "not_found")
    problem(await client.post("/v1/comparisons", json={"job_id": mine, "prompt": "x"}, headers=bob), 404, "not_found")


@pytest.mark.parametrize("job_id", ["x", "%00", "job-%ED%A0%80", "..%2f..%2fetc", "job-" + "f" * 3000])
async def test_an_id_that_is_none_is_not_found(client: httpx.AsyncClient, job_id: str) -> None:
    problem(await client.get(f"/v1/jobs/{job_id}"), 404, "not_found")


async def test_cancelling_is_idempotent_and_an_ended_job_stays_ended(
    client: httpx.AsyncClient, database: Database
) -> None:
    async with database.transaction() as session:
        running = await add_job(session, state=JobState.RUNNING)
        done = await add_job(session, state=JobState.SUCCEEDED)
    for _ in range(2):
        answer = await client.post(f"/v1/jobs/{running.id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    problem(await client.post(f"/v1/jobs/{done.id}/cancel"), 409, "invalid_state")


async def test_a_deployment_is_asked_for_looked_at_and_taken_down(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    async with database.transaction() as session:
        done = await add_job(session, state=JobState.SUCCEEDED)
        running = await add_job(session, state=JobState.RUNNING)
    config = make_model(settings.storage_root / "models" / done.id) / "config.json"
    path = f"/v1/jobs/{done.id}/deployment"

    problem(await client.get(path), 404, "not_found")
    problem(await client.delete(path), 404, "not_found")
    problem(await client.post(f"/v1/jobs/{running.id}/deployment"), 409, "invalid_state")
    config.write_text('{"model_type": "gpt_neo"}')
    problem(await client.post(path), 422, "model_unusable")
    config.write_text("{}")
    assert (await client.post(path)).status_code == 202
    assert (await client.get(path)).json()["state"] == "deploying"
    assert (await client.get(f"/v1/jobs/{done.id}")).json()["deployment"]["state"] == "deploying"
    taken_down = await client.delete(path)
    assert (taken_down.status_code, taken_down.json()["state"]) == (202, "removing")


async def test_a_failure_is_shown_with_its_stage_and_log(client: httpx.AsyncClient, database: Database) -> None:
    failure = {
        "code": "tokenizer_missing",
        "message": "There is no tokenizer.",
        "fault": "user",
        "stage": "prepare",
        "log_tail": ["a line"],
    }
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.FAILED, error=failure)
    assert (await client.get(f"/v1/jobs/{job.id}")).json()["error"] == failure
