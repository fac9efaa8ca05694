"""Deployments against a Serve in memory: which engines there are, who shares them, who sleeps and who fails."""

import dataclasses
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import select
from starlette.responses import JSONResponse, Response

from service.clock import utc_now
from service.controller.context import Controller, make_controller
from service.controller.deploy import Deploy
from service.db.session import Database
from service.db.tables import Deployment, Event, Job
from service.deployments import service as deployments
from service.deployments.uses import DeploymentUses
from service.errors import ModelNotDeployed, ModelWaking
from service.jobs.states import DeploymentState, JobState
from service.projects import service as projects
from service.projects.quota import Quota
from service.projects.usage import usage
from service.queue.snapshot import _limits
from service.serving.models import Served, require_served
from service.settings import Settings
from service.spec import AlignmentJob, ModelRef, Storage
from service.spec.origin import Origin
from tests.api.conftest import serve as serve_app
from tests.service.conftest import add_job, make_model
from tests.service.memory_serve import MemoryServe

READY, FAILED, SLEEPING = DeploymentState.READY, DeploymentState.FAILED, DeploymentState.SLEEPING
LORA = {"method": {"type": "lora", "rank": 8}}


class Adapters:
    """The door of the engines: answers for every adapter that is not damaged."""

    def __init__(self) -> None:
        self.damaged: set[str] = set()
        self.app = FastAPI()
        self.app.add_api_route("/{engine}/v1/completions", self.answer, methods=["POST"], response_model=None)

    async def answer(self, request: Request) -> Response:
        if (await request.json())["model"] in self.damaged:
            return JSONResponse({"error": {"message": "Failed to load lora model: incomplete metadata"}}, 422)
        return JSONResponse({"choices": []})


@pytest.fixture
def adapters() -> Adapters:
    return Adapters()


@pytest.fixture
def settings(settings: Settings, adapters: Adapters) -> Iterator[Settings]:
    for server in serve_app(adapters.app):
        yield settings.model_copy(update={"serve_url": server.url, "serving_idle_s": 600, "wake_wait_s": 0})


@pytest.fixture
def serve() -> MemoryServe:
    return MemoryServe()


@pytest.fixture
async def controller(settings: Settings, database: Database, serve: MemoryServe) -> AsyncIterator[Controller]:
    async with httpx.AsyncClient(transport=serve, base_url="http://ray") as client:
        yield make_controller(settings, database, client)


async def wanted(controller: Controller, *, base: str = "base", training: Any = None, **adapter: Any) -> Job:
    """A job that has succeeded and whose models are wanted. adapter: what its adapter_config.json says besides."""
    storage = Storage(controller.settings.storage_root)
    weights = storage.root / "models" / base
    if not weights.exists():
        (make_model(weights) / "config.json").write_text('{"model_type": "qwen3"}')
    spec: dict[str, Any] = {"model": str(weights), "data": {"train": "file-" + "0" * 21}, "training": training or {}}
    spec["losses"] = [{"type": "sft"}]
    async with controller.database.transaction() as session:
        columns = {"state": JobState.SUCCEEDED, "spec": AlignmentJob.model_validate(spec).model_dump(mode="json")}
        job = await add_job(session, **columns)
        await deployments.want(session, job)
    model = make_model(storage.model(job.id))
    (model / "config.json").write_text('{"model_type": "qwen3"}')
    if training:
        (model / "adapter").mkdir()
        config = {"r": 8, "target_modules": ["q_proj"], "base_model_name_or_path": str(weights.resolve())} | adapter
        (model / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return job


async def wanted_from_the_hub(controller: Controller) -> Job:
    """The same, of a job on `hf:team/model`."""
    job = await wanted(controller)
    async with controller.database.transaction() as session:
        fresh = await session.get_one(Job, job.id)
        fresh.spec = fresh.spec | {"model": {"source": "hf:team/model"}}
    return job


async def row(controller: Controller, job: Job) -> Deployment | None:
    async with controller.database.reading() as session:
        return await deployments.find(session, job)


async def state(controller: Controller, job: Job) -> DeploymentState | None:
    found = await row(controller, job)
    return found.state if found else None


async def come_up(controller: Controller, serve: MemoryServe) -> None:
    for _ in range(3):
        await Deploy().reconcile(controller)
        serve.run()
    await Deploy().reconcile(controller)


async def ask(controller: Controller, job: Job) -> Served:
    return await require_served(
        controller.database, controller.settings, DeploymentUses(), job.project_id, f"job:{job.id}"
    )


async def test_adapters_share_the_engine_of_their_base_and_a_second_one_starts_nothing(
    controller: Controller, serve: MemoryServe
) -> None:
    first = await wanted(controller, training=LORA)
    await come_up(controller, serve)
    puts = len(serve.puts)
    second = await wanted(controller, training=LORA)
    await come_up(controller, serve)
    assert (await state(controller, first), await state(controller, second)) == (READY, READY)
    assert len(serve.puts) == puts
    assert set(serve.started.values()) == {1}
    places = [found.places for job in (first, second) if (found := await row(controller, job)) and found.places]
    assert places[0]["base"] == places[1]["base"]
    assert [place["aligned"]["model"] for place in places] == [f"weights:{first.id}", f"weights:{second.id}"]
    assert {place[side]["engine"] for place in places for side in place} == set(serve.apps)


@pytest.mark.parametrize(
    "adapter", [{"r": 128}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"target_modules": ["lm_head"]}]
)
async def test_what_is_no_adapter_for_an_engine_has_its_own_with_merged_weights(
    controller: Controller, serve: MemoryServe, adapter: dict[str, Any]
) -> None:
    job = await wanted(controller, training=LORA, **adapter)
    await come_up(controller, serve)
    own = str(Storage(controller.settings.storage_root.resolve()).model(job.id))
    assert set(serve.running) == {own, str(controller.settings.storage_root / "models" / "base")}
    assert serve.running[own].args["adapters"] is None


async def test_the_base_of_a_model_from_the_hub_is_the_very_copy_that_was_trained_from(
    controller: Controller, serve: MemoryServe
) -> None:
    job = await wanted_from_the_hub(controller)
    storage = Storage(controller.settings.storage_root.resolve())
    trained_from = ModelRef(source="hf:team/model").at("c0ffee" + "0" * 34)
    Origin(job_id=job.id, model=trained_from).write(storage.model(job.id))
    copy = make_model(storage.hub_model("team/model", "c0ffee" + "0" * 34))
    storage.whole_hub_model("team/model", "c0ffee" + "0" * 34).touch()
    await come_up(controller, serve)
    assert set(serve.running) == {str(copy), str(storage.model(job.id))}

    async with controller.database.transaction() as session:
        await deployments.unwant(session, job)
    await come_up(controller, serve)
    shutil.rmtree(copy)  # then the engine fetches it, at that commit
    async with controller.database.transaction() as session:
        await deployments.want(session, job)
    await come_up(controller, serve)
    assert set(serve.running) == {trained_from.source, str(storage.model(job.id))}


async def test_a_model_that_says_nothing_sensible_of_its_base_is_not_served(
    controller: Controller, serve: MemoryServe
) -> None:
    job = await wanted_from_the_hub(controller)
    (Storage(controller.settings.storage_root).model(job.id) / "plumbline.json").write_text("{}")
    await come_up(controller, serve)
    found = await row(controller, job)
    assert found is not None
    assert (found.state, serve.apps) == (FAILED, {})
    assert "plumbline.json" in (found.message or "")


async def test_an_engine_that_fails_says_why_and_fails_those_on_it_alone(
    controller: Controller, serve: MemoryServe
) -> None:
    good, bad = await wanted(controller, training=LORA), await wanted(controller, base="broken", training=LORA)
    await Deploy().reconcile(controller)
    serve.fail(str(controller.settings.storage_root / "models" / "broken"), "OutOfMemoryError: CUDA out of memory")
    await come_up(controller, serve)
    found = await row(controller, bad)
    assert found is not None
    assert (found.state, await state(controller, good)) == (FAILED, READY)
    assert "OutOfMemoryError: CUDA out of memory" in (found.message or "")
    assert set(serve.running) == {str(controller.settings.storage_root / "models" / "base")}
    async with controller.database.transaction() as session:
        await deployments.want(session, bad)
    await come_up(controller, serve)
    assert await state(controller, bad) is READY


async def test_a_damaged_adapter_fails_alone_on_the_engine_it_shares(
    controller: Controller, serve: MemoryServe, adapters: Adapters
) -> None:
    good, bad = await wanted(controller, training=LORA), await wanted(controller, training=LORA)
    adapters.damaged.add(f"weights:{bad.id}")
    await come_up(controller, serve)
    found = await row(controller, bad)
    assert found is not None
    assert (found.state, await state(controller, good)) == (FAILED, READY)
    assert "incomplete metadata" in (found.message or "")
    assert len(serve.running) == 1


async def test_models_from_random_weights_have_no_base_to_serve(controller: Controller, serve: MemoryServe) -> None:
    job = await wanted(controller)
    async with controller.database.transaction() as session:
        fresh = await session.get_one(Job, job.id)
        fresh.spec = fresh.spec | {"model": fresh.spec["model"] | {"weights": "random"}, "serve": False}
    await come_up(controller, serve)
    found = await row(controller, job)
    assert found is not None
    assert found.state is FAILED
    assert "job:ID" in (found.message or "")
    assert serve.apps == {}


async def test_idle_models_give_up_their_engine_and_a_request_wakes_them(
    controller: Controller, serve: MemoryServe
) -> None:
    job = await wanted(controller, training=LORA)
    await come_up(controller, serve)
    await _last_used(controller, job, minutes=11)
    await come_up(controller, serve)
    assert await state(controller, job) is SLEEPING
    assert serve.apps == {}
    with pytest.raises(ModelWaking, match="waking") as told:
        await ask(controller, job)
    assert told.value.extra["retry_after_s"] >= 1
    assert await state(controller, job) is DeploymentState.DEPLOYING
    await come_up(controller, serve)
    assert (await ask(controller, job)).model == f"weights:{job.id}"


async def test_an_engine_stays_while_one_of_those_on_it_is_used(controller: Controller, serve: MemoryServe) -> None:
    idle, busy = await wanted(controller, training=LORA), await wanted(controller, training=LORA)
    await come_up(controller, serve)
    await _last_used(controller, idle, minutes=11)
    await come_up(controller, serve)
    assert (await state(controller, idle), await state(controller, busy)) == (SLEEPING, READY)
    assert set(serve.started.values()) == {1}
    assert len(serve.running) == 1


async def test_a_request_at_the_moment_of_falling_asleep_keeps_the_models_up(
    controller: Controller, serve: MemoryServe
) -> None:
    job = await wanted(controller, training=LORA)
    await come_up(controller, serve)
    await _last_used(controller, job, minutes=11)
    seen = await row(controller, job)
    assert seen is not None
    await ask(controller, job)
    async with controller.database.transaction() as session:
        with pytest.raises(deployments.InvalidState):
            await deployments.sleep(session, seen)
    await come_up(controller, serve)
    assert await state(controller, job) is READY


async def test_a_shared_engine_keeps_no_removed_deployment_and_an_own_one_does_until_it_is_gone(
    controller: Controller, serve: MemoryServe
) -> None:
    adapter, other = await wanted(controller, training=LORA), await wanted(controller, training=LORA)
    full = await wanted(controller)
    await come_up(controller, serve)
    async with controller.database.transaction() as session:
        for job in (adapter, full):
            await deployments.unwant(session, job)
    await Deploy().reconcile(controller)
    assert (await state(controller, adapter), await state(controller, other)) == (None, READY)
    assert await state(controller, full) is DeploymentState.REMOVING  # Serve has not let go of its weights
    with pytest.raises(ModelNotDeployed):
        await ask(controller, full)
    await come_up(controller, serve)
    assert await state(controller, full) is None


async def test_what_was_put_before_a_crash_is_found_and_not_started_again(
    controller: Controller, serve: MemoryServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await wanted(controller, training=LORA)

    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("service.controller.deploy._record", die)
        with pytest.raises(KeyboardInterrupt):
            await Deploy().reconcile(controller)
    await come_up(controller, serve)
    assert await state(controller, job) is READY
    assert set(serve.started.values()) == {1}


async def _last_used(controller: Controller, job: Job, *, minutes: float) -> None:
    async with controller.database.transaction() as session:
        found = await session.get_one(Deployment, job.id)
        found.used_at = utc_now() - timedelta(minutes=minutes)


async def limit(controller: Controller, max_gpus: float) -> None:
    async with controller.database.transaction() as session:
        await projects.ensure(session, "ada")
        await projects.set_quota(session, "ada", Quota(max_gpus=max_gpus))


async def told(controller: Controller, job: Job) -> list[str]:
    async with controller.database.reading() as session:
        return list(await session.scalars(select(Event.type).where(Event.job_id == job.id).order_by(Event.number)))


@pytest.fixture
async def gpus(controller: Controller) -> Controller:
    """Of a cluster whose engines hold a GPU each."""
    settings = controller.settings.model_copy(update={"serving_device": "gpu"})
    return dataclasses.replace(controller, settings=settings)


async def test_engines_count_in_the_quota_of_gpus_and_wait_until_some_are_free(
    gpus: Controller, serve: MemoryServe
) -> None:
    await limit(gpus, 3)
    async with gpus.database.transaction() as session:
        training = await add_job(session, state=JobState.RUNNING, gpus=2.0)
    first = await wanted(gpus, training=LORA)
    await come_up(gpus, serve)
    assert {app.args["gpus_per_engine"] for app in serve.running.values()} == {1}  # where no node is up yet, too
    merged = await wanted(gpus)
    await come_up(gpus, serve)
    found = await row(gpus, merged)
    assert found is not None
    assert (found.state, found.places) == (DeploymentState.DEPLOYING, None)
    assert "max_gpus: the project uses 3 of 3 GPUs, and this asks for 1" in (found.message or "")
    assert await told(gpus, merged) == ["deployment.deploying", "deployment.waiting"]
    sharing = await wanted(gpus, training=LORA)  # an engine that is there
    async with gpus.database.reading() as session:
        assert (await usage(session, "ada")).gpus == 3
        assert (await _limits(session, ["ada"], utc_now()))["ada"].gpus_served == 1
    async with gpus.database.transaction() as session:
        (await session.get_one(Job, training.id)).state = JobState.SUCCEEDED
    await come_up(gpus, serve)
    assert [await state(gpus, job) for job in (first, merged, sharing)] == [READY] * 3


async def test_models_whose_engines_never_fit_the_quota_fail_and_say_so(gpus: Controller, serve: MemoryServe) -> None:
    await limit(gpus, 1)
    job = await wanted(gpus)
    await come_up(gpus, serve)
    found = await row(gpus, job)
    assert found is not None
    assert found.state is DeploymentState.FAILED
    assert "max_gpus: the project uses 0 of 1 GPUs, and this asks for 2" in (found.message or "")
    assert await told(gpus, job) == ["deployment.deploying", "deployment.failed"]
