"""Secrets are planted wherever one may end up by mistake, and looked for wherever people can read."""

from typing import Any

import httpx
import pytest

from service.db.session import Database
from service.jobs import attempts
from service.jobs.repository import JobRepository
from service.jobs.tokens import attempt_token
from service.settings import Settings
from tests.telemetry.test_requests import log

__all__ = ["log"]

HUB_TOKEN = "hf_PlantedHubTokenPlanted"
SIGNATURE = "PlantedSignature0123456789"
SIGNED = f"https://bucket.s3.amazonaws.com/pairs.jsonl?X-Amz-Credential=AKIA&X-Amz-Signature={SIGNATURE}"
PASSWORD = "planted-password"


@pytest.fixture
def planted(ada: dict[str, str]) -> list[str]:
    return [ada["Authorization"].removeprefix("Bearer "), HUB_TOKEN, SIGNATURE, PASSWORD]


async def everything_a_project_reads(client: httpx.AsyncClient, job_id: str) -> str:
    """What the API shows of a job, in both forms, as one text."""
    shown = ""
    for path in ("", f"/{job_id}", f"/{job_id}/events?limit=1000", f"/{job_id}/metrics", f"/{job_id}/data-report"):
        shown += (await client.get(f"/v1/jobs{path}")).text
    async with client.stream("GET", f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as stream:
        shown += (await stream.aread()).decode()
    for path in ("", f"/{job_id}", f"/{job_id}/events", f"/{job_id}/checkpoints"):
        shown += (await client.get(f"/v1/fine_tuning/jobs{path}")).text
    return shown


async def test_none_of_them_is_in_logs_events_errors_or_listings(
    client: httpx.AsyncClient,
    body: dict[str, Any],
    database: Database,
    settings: Settings,
    log: list[str],
    planted: list[str],
) -> None:
    key = planted[0]
    answers = ""
    body["data"] = {"train": SIGNED}
    submitted = await client.post("/v1/jobs", json=body)
    assert submitted.status_code == 201, submitted.text
    job_id = submitted.json()["id"]
    answers += submitted.text

    # in the wrong place of a request
    for wrong in (
        {"data": {"train": SIGNED.replace("https", "http")}},
        {"data": {"train": SIGNED + "&password=" + PASSWORD, "max_length": -1}},
        {"model": f"hf:org/{HUB_TOKEN}", "hub_token": HUB_TOKEN},
        {"model": "/models/x", key: key},
        {"model": f"https://ada:{PASSWORD}@host/model"},
    ):
        answers += (await client.post("/v1/jobs", json=body | wrong)).text
        given = {"model": "m", "training_file": SIGNED, "suffix": key} | wrong
        answers += (await client.post("/v1/fine_tuning/jobs", json=given)).text
    answers += (await client.get(f"/v1/jobs?cursor={key}")).text
    answers += (await client.get(f"/v1/{key}")).text
    answers += (await client.get("/v1/jobs", headers={"Authorization": key})).text

    # in what an attempt says, and in its log
    async with database.transaction() as session:
        job = await JobRepository(session).get(job_id)
        attempt_id = (await attempts.start_attempt(session, job)).id
    token = attempt_token(settings, attempt_id)
    says = f"{SIGNED} with {HUB_TOKEN}, postgresql://ada:{PASSWORD}@db/x, PLUMBLINE_ATTEMPT_TOKEN={token}, {key}"
    failure = {"code": "c", "message": says, "fault": "user", "log_tail": [says, f"Authorization: Bearer {token}"]}
    reports = [
        {"kind": "event", "type": "data.fetched", "message": says, "data": {"source": SIGNED, "env": [{"x": says}]}},
        {"kind": "outcome", "result": "failed", "failure": failure},
    ]
    headers = {"Authorization": f"Bearer {token}"}
    url = f"/internal/attempts/{attempt_id}/reports"
    for _ in range(2):
        answers += (await client.post(url, json={"first_seq": 1, "reports": reports}, headers=headers)).text
    answers += (await client.post(url, json={"first_seq": 9, "reports": []}, headers=headers)).text

    read = answers + await everything_a_project_reads(client, job_id) + (await client.get("/metrics")).text
    logged = "\n".join(log)
    for secret in (*planted, token, "a secret of this test"):
        assert secret not in read
        assert secret not in logged
    assert "X-Amz-Signature=***" in read
    assert "data.fetched" in read
    assert job_id in logged


async def test_the_attempt_itself_is_given_the_url_as_it_was_sent(
    client: httpx.AsyncClient, body: dict[str, Any], database: Database, settings: Settings
) -> None:
    body["data"] = {"train": SIGNED}
    job_id = (await client.post("/v1/jobs", json=body)).json()["id"]
    async with database.transaction() as session:
        attempt_id = (await attempts.start_attempt(session, await JobRepository(session).get(job_id))).id
    headers = {"Authorization": f"Bearer {attempt_token(settings, attempt_id)}"}
    brief = (await client.get(f"/internal/attempts/{attempt_id}", headers=headers)).json()
    assert brief["spec"]["data"]["train"] == SIGNED
