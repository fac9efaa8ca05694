"""Pause, resume, retry, clone, delete and checkpoints over HTTP."""

from typing import Any

import httpx

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Metric
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from tests.api.conftest import problem
from tests.service.conftest import add_job

NOBODYS = "job-" + "0" * 21


async def test_a_job_is_held_and_let_go(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    job = (await client.post("/v1/jobs", json=body)).json()
    answer = await client.post(f"/v1/jobs/{job['id']}/pause")
    assert (answer.status_code, answer.json()["state"]) == (202, "paused")
    answer = await client.post(f"/v1/jobs/{job['id']}/resume", json={"max_gpu_hours": 2.5})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.json()["spec"]["resources"]["max_gpu_hours"] == 2.5
    problem(await client.post(f"/v1/jobs/{job['id']}/resume", json={"max_gpu_hours": 0}), 422, "invalid_request")
    problem(await client.post(f"/v1/jobs/{job['id']}/resume", json={"hours": 1}), 422, "invalid_request")


async def test_what_is_not_possible_says_why(client: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
    for action in ("pause", "resume", "retry"):
        told = problem(await client.post(f"/v1/jobs/{job.id}/{action}"), 409, "invalid_state")
        assert told["state"] == "succeeded"
        problem(await client.post(f"/v1/jobs/{NOBODYS}/{action}"), 404, "not_found")
    problem(await client.post(f"/v1/jobs/{NOBODYS}/clone", json={}), 404, "not_found")
    problem(await client.delete(f"/v1/jobs/{NOBODYS}"), 404, "not_found")
    problem(await client.get(f"/v1/jobs/{NOBODYS}/checkpoints"), 404, "not_found")


async def test_a_spent_budget_is_told_with_its_numbers(client: httpx.AsyncClient, database: Database) -> None:
    spec = AlignmentJob.model_validate(
        {"model": "/m", "data": {"train": "file-" + "0" * 21}, "resources": {"max_gpu_hours": 2}}
    ).model_dump(mode="json")
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.PAUSED, spec=spec, gpu_seconds=7200.0)
    told = problem(await client.post(f"/v1/jobs/{job.id}/resume"), 409, "budget_spent")
    assert (told["gpu_hours"], told["max_gpu_hours"]) == (2.0, 2.0)
    assert (await client.post(f"/v1/jobs/{job.id}/resume", json={"max_gpu_hours": 3})).status_code == 202


async def test_a_retried_job_has_no_error_any_more(
    client: httpx.AsyncClient, database: Database, body: dict[str, Any]
) -> None:
    spec = AlignmentJob.model_validate(body).model_dump(mode="json")
    error = {"code": "interrupted", "message": "lost", "fault": "system"}
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.FAILED, spec=spec, error=error, finished_at=utc_now())
    again = (await client.post(f"/v1/jobs/{job.id}/retry")).json()
    assert (again["id"], again["state"], again["error"], again["finished_at"]) == (job.id, "queued", None, None)


async def test_a_clone_is_a_job_of_its_own(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    first = (await client.post("/v1/jobs", json=body)).json()
    patch = {"name": "again", "losses": [{"type": "sigmoid", "beta": 0.3}]}
    key = {"Idempotency-Key": "once"}
    made = await client.post(f"/v1/jobs/{first['id']}/clone", json=patch, headers=key)
    assert (made.status_code, made.json()["cloned_from"], made.json()["name"]) == (201, first["id"], "again")
    assert made.json()["spec"]["losses"][0]["beta"] == 0.3
    again = await client.post(f"/v1/jobs/{first['id']}/clone", json=patch, headers=key)
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (made.json()["id"], "true")
    refused = await client.post(f"/v1/jobs/{first['id']}/clone", json={"losses": [{"type": "sigmoidal"}]})
    problem(refused, 422, "unknown_loss")


async def test_a_deleted_job_is_gone_for_all_routes(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    job = (await client.post("/v1/jobs", json=body)).json()
    problem(await client.delete(f"/v1/jobs/{job['id']}"), 409, "invalid_state")
    await client.post(f"/v1/jobs/{job['id']}/cancel")
    for _ in range(2):
        answer = await client.delete(f"/v1/jobs/{job['id']}")
        assert (answer.status_code, answer.json()) == (200, {"id": job["id"], "object": "job", "deleted": True})
    assert (await client.get("/v1/jobs")).json()["data"] == []
    for path in ("", "/events", "/metrics", "/checkpoints", "/data-report", "/deployment"):
        problem(await client.get(f"/v1/jobs/{job['id']}{path}"), 404, "not_found")
    problem(await client.post(f"/v1/jobs/{job['id']}/retry"), 404, "not_found")


async def test_checkpoints_are_listed_with_what_was_measured_there(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.RUNNING)
        for number, (step, split, loss) in enumerate(
            [(50, "train", 0.9), (50, "train", 0.7), (50, "held_out", 0.8), (60, "train", 0.6)], start=1
        ):
            row = {"job_id": job.id, "number": number, "attempt": 1, "created_at": utc_now()}
            session.add(Metric(**row, split=split, step=step, values={"loss": loss}))
    assert (await client.get(f"/v1/jobs/{job.id}/checkpoints")).json() == {"data": []}
    directory = Storage(settings.storage_root).checkpoints(job.id)
    for name, content in {"step-00000050": "12345", "step-00000100": "1", ".step-00000150-half": "1"}.items():
        (directory / name).mkdir(parents=True)
        (directory / name / "run.json").write_text(content)
    first, second = (await client.get(f"/v1/jobs/{job.id}/checkpoints")).json()["data"]
    assert (first["step"], first["bytes"]) == (50, 5)
    assert first["metrics"] == {"train": {"loss": 0.7}, "held_out": {"loss": 0.8}}
    assert (second["step"], second["metrics"]) == (100, {})
    assert first["saved_at"].endswith("Z")
