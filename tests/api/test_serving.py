"""Checkpoints as models, and names, over HTTP; what becomes of them is tested with the services."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Deployment, Job
from service.db.tenant_tables import AuditEntry
from service.deployments import service as deployments
from service.exports import service as exports
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import Storage
from service.spec.layout import step_name
from tests.api.conftest import problem
from tests.service.conftest import add_job, answers, deploy, make_model

STEP = 50


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wake_wait_s": 0})


@pytest.fixture
async def job(database: Database, settings: Settings) -> Job:
    """Running, with a checkpoint."""
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.RUNNING)
    checkpoint = Storage(settings.storage_root).checkpoints(job.id) / step_name(STEP)
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.json").write_text("{}")
    return job


async def export(client: httpx.AsyncClient, database: Database, settings: Settings, job: Job) -> None:
    """Ask for it, and let the cluster make it."""
    await client.post(f"/v1/jobs/{job.id}/checkpoints/{STEP}/export")
    make_model(Storage(settings.storage_root).model(job.id, STEP))
    async with database.transaction() as session:
        found = await exports.find(session, job.id, STEP)
        assert found is not None
        await exports.submitted(session, found)
        await exports.succeeded(session, found, 7)


async def test_a_checkpoint_is_listed_exported_deployed_and_deleted(
    client: httpx.AsyncClient, database: Database, settings: Settings, job: Job
) -> None:
    path = f"/v1/jobs/{job.id}/checkpoints"
    [listed] = (await client.get(path)).json()["data"]
    assert (listed["step"], listed["resumable"], listed["export"]) == (STEP, True, None)
    problem(await client.get(f"{path}/{STEP}/export"), 404, "not_found")
    problem(await client.post(f"{path}/7/export"), 404, "not_found")
    assert "POST" in problem(await client.post(f"{path}/{STEP}/deployment"), 409, "invalid_state")["detail"]
    asked = await client.post(f"{path}/{STEP}/export")
    assert (asked.status_code, asked.json()["state"], asked.json()["model"]) == (202, "requested", f"job:{job.id}@50")
    problem(await client.delete(f"{path}/{STEP}/export"), 409, "invalid_state")

    await export(client, database, settings, job)
    (Storage(settings.storage_root).checkpoints(job.id) / step_name(STEP) / "run.json").unlink()
    (Storage(settings.storage_root).checkpoints(job.id) / step_name(STEP)).rmdir()
    [listed] = (await client.get(path)).json()["data"]
    assert (listed["resumable"], listed["bytes"], listed["export"]["state"]) == (False, 7, "ready")
    deployed = await client.post(f"{path}/{STEP}/deployment")
    assert (deployed.status_code, deployed.json()["step"], deployed.json()["state"]) == (202, STEP, "deploying")
    assert (await client.get(f"{path}/{STEP}/deployment")).json() == deployed.json()
    assert (await client.get(f"/v1/jobs/{job.id}")).json()["deployment"] is None  # of what it published
    problem(await client.delete(f"{path}/{STEP}/export"), 409, "invalid_state")
    async with database.transaction() as session:
        await deployments.removed(session, await deployments.unwant(session, job, STEP))
    assert (await client.delete(f"{path}/{STEP}/export")).json()["deleted"] is True
    assert (await client.get(path)).json() == {"data": []}


async def test_an_exported_checkpoint_is_listed_and_named_as_openai_names_them(
    client: httpx.AsyncClient, database: Database, settings: Settings, job: Job
) -> None:
    await export(client, database, settings, job)
    [listed] = (await client.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints")).json()["data"]
    name = listed["fine_tuned_model_checkpoint"]
    assert (listed["step_number"], name) == (STEP, f"job:{job.id}:ckpt-step-50")
    for spelling in (name, f"job:{job.id}@50"):
        assert (await client.get(f"/v1/models/{spelling}")).json()["id"] == f"job:{job.id}@50"
    assert [one["id"] for one in (await client.get("/v1/models")).json()["data"]] == [f"job:{job.id}@50"]
    assert (await client.delete(f"/v1/models/{name}")).json()["deleted"] is True
    assert (await client.get(f"/v1/models/{name}")).status_code == 404


async def test_a_name_is_promoted_shown_rolled_back_and_ended(client: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        old, new = [await add_job(session, state=JobState.SUCCEEDED, finished_at=utc_now()) for _ in range(2)]
        await deploy(session, old)
    first = await client.post("/v1/models/support/promote", json={"job": old.id})
    assert (first.status_code, first.json()["state"]) == (202, "current")
    second = (await client.post("/v1/models/support/promote", json={"job": new.id})).json()
    history = (await client.get("/v1/models/support/promotions")).json()
    assert (history["current"]["job_id"], history["pending"]) == (old.id, second)
    named = (await client.get("/v1/models/support")).json()
    assert named["id"] == (await client.get("/v1/models")).json()["data"][0]["id"] == "support"
    async with database.transaction() as session:
        await answers(session, await session.get_one(Deployment, new.id))
    problem(await client.post("/v1/models/support/rollback"), 409, "invalid_state")  # it means nothing else yet
    problem(await client.delete(f"/v1/jobs/{old.id}/deployment"), 409, "invalid_state")
    assert (await client.delete("/v1/models/support")).json() == {"id": "support", "object": "model", "deleted": True}
    assert (await client.get("/v1/models/support")).status_code == 404
    async with database.reading() as session:
        actions = (await session.scalars(select(AuditEntry.action).order_by(AuditEntry.id))).all()
    assert {"POST /v1/models/{name}/promote", "DELETE /v1/models/{model}"} <= set(actions)


async def test_what_can_be_no_name_and_what_is_no_model_is_refused(client: httpx.AsyncClient, job: Job) -> None:
    problem(await client.post("/v1/models/Support!/promote", json={"job": job.id}), 422, "invalid_request")
    problem(await client.post("/v1/models/support/promote", json={"job": job.id}), 409, "invalid_state")
    problem(await client.post("/v1/models/support/promote", json={"job": job.id, "step": 0}), 422, "invalid_request")
    problem(await client.post("/v1/models/support/rollback"), 404, "not_found")
    problem(await client.get("/v1/models/support/promotions"), 404, "not_found")


async def test_a_request_to_sleeping_models_wakes_them_and_says_when_to_come_again(
    client: httpx.AsyncClient, database: Database
) -> None:
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
        deployment = await deploy(session, job)
        deployment.deploying_since = utc_now() - timedelta(seconds=80)
        deployment.start_s = 80.0
        await session.flush()
        await deployments.sleep(session, deployment)
    body = {"model": f"job:{job.id}", "prompt": "Hello"}
    for _ in range(2):  # the second finds it waking
        told = await client.post("/v1/completions", json=body)
        assert (told.status_code, told.headers["retry-after"]) == (503, "40")
        assert (told.json()["error"]["code"], "waking" in told.json()["error"]["message"]) == ("model_waking", True)
    told = await client.post("/v1/comparisons", json={"job_id": job.id, "prompt": "Hello"})
    assert problem(told, 503, "model_waking")["retry_after_s"] == 40
    events = (await client.get(f"/v1/jobs/{job.id}/events")).json()["data"]
    assert [one["type"] for one in events][-2:] == ["deployment.sleeping", "deployment.deploying"]
