"""What a client is told of the queue, and of a job that it only thinks of."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Attempt, ClusterView, Forecast, Job
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.settings import Settings
from tests.api.conftest import problem
from tests.service.conftest import add_job


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_running_jobs": 9})


POLICY = {"label": "policy", "gpus": 4.0, "cpus": 64.0, "accelerator": "L4"}
SHARED = {"label": "shared", "gpus": 0.0, "cpus": 16.0, "accelerator": None}


async def see(database: Database, *nodes: dict[str, Any]) -> None:
    """What a controller has seen of the cluster a moment ago."""
    async with database.transaction() as session:
        now = utc_now()
        session.add(ClusterView(id=1, nodes=list(nodes), observed_at=now, tried_at=now))


async def add(database: Database, gpus: int, **columns: Any) -> Job:
    async with database.transaction() as session:
        job = await add_job(session, **columns)
        losses = [{"type": "sft"}]  # no reference pass
        resources = {"policy": {"workers": gpus, "gpus_per_worker": 1}}
        job.spec = job.spec | {"losses": losses, "resources": resources}
        return job


async def count(database: Database) -> int:
    async with database.reading() as session:
        return len(await JobRepository(session).in_states(*JobState))


async def test_a_job_says_what_it_waits_for_and_who_holds_it(client: httpx.AsyncClient, database: Database) -> None:
    await see(database, POLICY, SHARED)
    now = utc_now()
    for _ in range(2):  # jobs like those that follow took ten minutes
        done = {"started_at": now - timedelta(hours=2), "finished_at": now - timedelta(hours=2) + timedelta(minutes=10)}
        past = await add(database, 1, state=JobState.SUCCEEDED, num_attempts=1, **done)
        async with database.transaction() as session:
            leased = done["started_at"] - timedelta(seconds=5)
            session.add(Attempt(id=f"{past.id}-1", job_id=past.id, number=1, state="succeeded", created_at=leased))
    running = await add(database, 2, state=JobState.RUNNING, started_at=now)
    theirs = await add(database, 1, state=JobState.RUNNING, started_at=now, project_id="bob")
    waits = await add(database, 3)

    told = (await client.get(f"/v1/jobs/{waits.id}")).json()
    waiting, eta = told["waiting"], told["eta"]
    assert (waiting["code"], waiting["position"]) == ("pool_full", 1)
    assert waiting["message"].startswith("Needs 3 GPUs labelled pool=policy or pool=shared; 2 GPUs too few are free.")
    assert f"{running.id} (2 GPUs) until about " in waiting["message"]
    assert theirs.id not in str(told)
    assert [holder["job_id"] for holder in waiting["holders"]] == [running.id, None]
    assert waiting["needs"][0] == {
        "pool": "policy",
        "labels": ["policy", "shared"],
        "gpus": 3,
        "cpus": 3,
        "missing_gpus": 2,
        "missing_cpus": 0,
    }
    assert now.isoformat() < eta["start_low"] < eta["start_high"] < eta["finish_high"]
    listed = (await client.get("/v1/jobs")).json()["data"]
    assert [job["waiting"]["code"] for job in listed if job["waiting"]] == ["pool_full"]
    assert (await client.get(f"/v1/jobs/{running.id}")).json()["waiting"] is None


async def test_a_dry_run_reports_every_check_and_writes_nothing(
    client: httpx.AsyncClient, database: Database, body: dict[str, Any]
) -> None:
    await see(database, SHARED)
    answer = await client.post("/v1/jobs?dry_run=true", json=body)
    report = answer.json()
    assert (answer.status_code, report["ok"]) == (200, True), report
    assert [check["name"] for check in report["checks"]] == ["model", "data", "pools", "memory", "quota"]
    assert report["waiting"]["code"] == "next"
    assert report["cost"]["gpus"] == 0
    assert await count(database) == 0


async def test_a_dry_run_tells_of_a_budget_that_would_never_be_spent(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    for gpus, ok in ((0, False), (1, True)):
        resources = {"policy": {"gpus_per_worker": gpus}, "reference": {"gpus_per_worker": gpus}, "max_gpu_hours": 2}
        report = (await client.post("/v1/jobs?dry_run=true", json=body | {"resources": resources})).json()
        (budget,) = [check for check in report["checks"] if check["name"] == "budget"]
        assert (budget["ok"], budget["field"]) == (ok, None if ok else "resources.max_gpu_hours")
        assert report["ok"] <= ok


async def test_a_dry_run_says_everything_that_is_wrong_at_once(
    client: httpx.AsyncClient, database: Database, body: dict[str, Any]
) -> None:
    await see(database, POLICY)
    asked = body | {"model": "/nowhere", "resources": {"policy": {"workers": 9}}}
    report = (await client.post("/v1/jobs?dry_run=true", json=asked)).json()
    assert not report["ok"]
    failed = {check["name"]: check["code"] for check in report["checks"] if not check["ok"]}
    assert failed == {"model": "model_not_found", "pools": "pool_missing"}
    assert (report["waiting"], report["eta"]) == (None, None)
    assert await count(database) == 0


async def test_a_job_that_no_node_is_labelled_for_is_refused(
    client: httpx.AsyncClient, database: Database, body: dict[str, Any]
) -> None:
    await see(database, POLICY)
    found = problem(await client.post("/v1/jobs", json=body), 422, "pool_missing")
    assert found["pools"] == ["control", "reference", "serving"]


async def test_a_job_that_is_larger_than_the_cluster_is_refused(
    client: httpx.AsyncClient, database: Database, body: dict[str, Any]
) -> None:
    await see(database, POLICY, SHARED)
    wide = {"resources": {"policy": {"gpus_per_worker": 5}}}
    many = {"resources": {"policy": {"workers": 5}}}
    for asked in (wide, many):
        found = problem(await client.post("/v1/jobs", json=body | asked), 422, "pool_too_small")
        assert found["field"] == "resources.policy"


async def test_a_model_that_cannot_fit_the_gpus_is_refused(
    client: httpx.AsyncClient, database: Database, body: dict[str, Any]
) -> None:
    await see(database, POLICY, SHARED)
    shape = {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256}
    (Path(body["model"]) / "config.json").write_text(json.dumps(shape | {"num_attention_heads": 32}))
    found = problem(await client.post("/v1/jobs", json=body), 422, "does_not_fit_memory")
    assert found["field"] == "model"
    assert found["needed_gib"] > found["gpu_gib"] == 24
    sliced = body | {"training": {"parallelism": "fsdp"}, "resources": {"policy": {"workers": 4}}}
    found = problem(await client.post("/v1/jobs", json=sliced), 422, "does_not_fit_memory")
    lora = body | {"training": {"method": {"type": "lora"}}, "losses": [{"type": "sft"}], "serve": False}
    lora |= {"model": {"source": body["model"], "weights": "random"}}
    report = (await client.post("/v1/jobs?dry_run=true", json=lora)).json()
    memory = next(check for check in report["checks"] if check["name"] == "memory")
    assert memory["ok"]
    assert "of 24 GiB" in memory["message"]


async def test_jobs_are_accepted_while_the_cluster_is_unknown(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    report = (await client.post("/v1/jobs?dry_run=true", json=body)).json()
    told = {check["name"]: check["message"] for check in report["checks"]}
    assert report["ok"]
    assert "not been seen" in told["pools"]
    assert "not been seen" in told["memory"]


async def test_the_queue_tells_what_the_cluster_has_and_how_good_its_forecasts_were(
    client: httpx.AsyncClient, database: Database
) -> None:
    await see(database, POLICY, POLICY, SHARED)
    await add(database, 99)
    now = utc_now()
    ran = await add(
        database, 1, state=JobState.SUCCEEDED, num_attempts=1, started_at=now, finished_at=now + timedelta(seconds=90)
    )
    async with database.transaction() as session:
        at = {"start_low": now - timedelta(60), "start_high": now - timedelta(30)}
        at |= {"finish_low": now, "finish_high": now + timedelta(seconds=100)}
        session.add(Forecast(job_id=ran.id, moment="queued", made_at=now, **at))
    told = (await client.get("/v1/queue")).json()
    assert (told["queued"], told["on_cluster"]) == (1, 0)
    assert told["labels"][0] == {"label": "policy", "nodes": 2, "gpus": 8, "cpus": 128}
    start, finish, _ = told["forecasts"]
    assert (start["event"], start["count"], start["coverage"]) == ("start", 1, 0)
    assert (finish["event"], finish["coverage"], finish["median_error_s"]) == ("finish", 1, 40)
    assert finish["median_width_s"] == 100


async def test_a_cluster_that_nobody_has_looked_at_is_told_so(client: httpx.AsyncClient) -> None:
    told = (await client.get("/v1/queue")).json()
    assert (told["labels"], told["observed_at"]) == ([], None)
    assert "No controller" in told["trouble"]


async def test_openais_surface_tells_the_place_in_the_queue_too(client: httpx.AsyncClient, database: Database) -> None:
    await see(database, POLICY, SHARED)
    job = await add(database, 9)
    told = (await client.get(f"/v1/fine_tuning/jobs/{job.id}")).json()
    listed = (await client.get("/v1/fine_tuning/jobs")).json()["data"][0]
    for one in (told, listed):
        assert (one["status"], one["queue_position"], one["waiting"]["code"]) == ("queued", 1, "never_fits")
