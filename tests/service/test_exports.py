"""Exports of checkpoints against a Ray in memory, whose processes are the test's: what they leave on the storage."""

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from service.cluster.jobs import RayJobStatus
from service.controller import export as exporting
from service.controller.context import Controller, make_controller
from service.controller.export import Export, submission_id
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.db.tables import Event, Job
from service.deployments import service as deployments
from service.errors import InvalidState, ModelNotFound, NotFound, QuotaExceeded
from service.exports import pin as pinning
from service.exports import service as exports
from service.exports import sweep as sweeping
from service.jobs import deletion
from service.jobs.model_admission import check_models, hold_models
from service.jobs.states import ExportState, JobState
from service.projects import service as projects
from service.projects.quota import Quota
from service.projects.usage import usage
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from service.spec.export import Refusal, refusal_path
from service.spec.layout import step_name
from service.spec.reports import Fault
from tests.service.conftest import add_job, make_model
from tests.service.memory_ray import MemoryRay

STEP = 50


@pytest.fixture
def ray() -> MemoryRay:
    return MemoryRay()


@pytest.fixture
async def controller(
    settings: Settings, database: Database, ray: MemoryRay, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Controller]:
    monkeypatch.setattr(exporting, "OUTCOME_GRACE_S", 0)
    async with httpx.AsyncClient(transport=ray, base_url="http://ray") as client:
        yield make_controller(settings, database, client)


@pytest.fixture
async def job(database: Database, settings: Settings) -> Job:
    """Running, with a checkpoint."""
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.RUNNING)
    write_checkpoint(settings, job)
    return job


def write_checkpoint(settings: Settings, job: Job) -> Path:
    directory = Storage(settings.storage_root).checkpoints(job.id) / step_name(STEP)
    directory.mkdir(parents=True)
    for name in (".metadata", "__0_0.distcp", "run.json"):
        (directory / name).write_text(name)
    return directory


async def ask(controller: Controller, job: Job) -> CheckpointExport:
    return await exports.request(controller.database, controller.settings, job.project_id, job.id, STEP)


async def look(controller: Controller, job: Job) -> CheckpointExport:
    async with controller.database.reading() as session:
        found = await exports.find(session, job.id, STEP)
    assert found is not None
    return found


async def step(controller: Controller) -> None:
    """A pass of a controller that has just been started."""
    await Export().reconcile(controller)


async def end(controller: Controller, ray: MemoryRay, job: Job, *, model: bool) -> None:
    """The process of the newest try ends, with or without a model."""
    export = await look(controller, job)
    if model:
        make_model(Storage(controller.settings.storage_root).model(job.id, STEP))
    ray.drivers[submission_id(export)].status = RayJobStatus.SUCCEEDED if model else RayJobStatus.FAILED


async def made(controller: Controller, ray: MemoryRay, job: Job) -> CheckpointExport:
    await ask(controller, job)
    await step(controller)
    await end(controller, ray, job, model=True)
    await step(controller)
    return await look(controller, job)


async def test_an_export_asks_for_the_memory_of_its_model_and_says_if_no_node_has_it(
    controller: Controller, ray: MemoryRay, job: Job
) -> None:
    async with controller.database.transaction() as session:
        (await session.get_one(Job, job.id)).size = {"parameters": 7 * 10**9}
    await ask(controller, job)
    waiting = replace(controller, settings=controller.settings.model_copy(update={"start_timeout_s": 1e-9}))
    reconciler = Export()
    for _ in range(2):
        await reconciler.reconcile(waiting)
        assert (await look(controller, job)).state is ExportState.RUNNING
    (driver,) = ray.drivers.values()
    assert 4 * 7 * 10**9 < driver.memory < 5 * 7 * 10**9
    await reconciler.reconcile(waiting)
    export = await look(controller, job)
    assert export.state is ExportState.FAILED
    assert "28 GiB" in (export.message or "")
    assert driver.stopping

    await ask(controller, job)  # later
    await step(controller)
    _, driver = ray.drivers.values()
    driver.status, driver.is_placeless = RayJobStatus.FAILED, True  # Ray's patience is shorter
    await step(controller)
    export = await look(controller, job)
    assert (export.state, export.failures) == (ExportState.FAILED, 0)
    assert "28 GiB" in (export.message or "")


async def test_a_checkpoint_becomes_a_model_although_the_job_lets_go_of_it(
    controller: Controller, ray: MemoryRay, settings: Settings, job: Job
) -> None:
    export = await ask(controller, job)
    shutil.rmtree(Storage(settings.storage_root).checkpoints(job.id))  # published, or a newer one came
    pinned = Storage(settings.storage_root).pinned(job.id, STEP)
    assert {path.name: path.read_text() for path in pinned.iterdir()} == {
        name: name for name in (".metadata", "__0_0.distcp", "run.json")
    }
    again = await ask(controller, job)
    assert (export.state, again.generation) == (ExportState.REQUESTED, 1)
    await step(controller)
    assert (await look(controller, job)).state is ExportState.RUNNING
    await end(controller, ray, job, model=True)
    await step(controller)
    export = await look(controller, job)
    assert (export.state, export.bytes) == (ExportState.READY, 5)
    assert not pinned.exists()
    async with controller.database.reading() as session:
        told = (await session.scalars(select(Event.type).where(Event.job_id == job.id).order_by(Event.number))).all()
        assert (await usage(session, "ada")).storage_bytes == 5
    assert list(told) == ["checkpoint.export_requested", "checkpoint.exported"]
    assert (await ask(controller, job)).generation == 1


async def test_a_checkpoint_that_is_not_there_is_not_found(
    controller: Controller, settings: Settings, job: Job
) -> None:
    shutil.rmtree(Storage(settings.storage_root).checkpoints(job.id))
    with pytest.raises(NotFound, match="no checkpoint after step 50"):
        await ask(controller, job)


async def test_a_checkpoint_that_goes_while_it_is_linked_is_not_found(
    controller: Controller, settings: Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = pinning._link_or_copy

    def rotate_first(source: Path, target: Path) -> None:
        if source.name == "__0_0.distcp":
            source.parent.rename(source.parent.with_name(".step-going"))
        link(source, target)

    monkeypatch.setattr(pinning, "_link_or_copy", rotate_first)
    with pytest.raises(NotFound):
        await ask(controller, job)
    assert list(Storage(settings.storage_root).pinned(job.id, STEP).parent.iterdir()) == []


async def test_a_storage_without_hard_links_has_the_checkpoint_copied(
    controller: Controller, settings: Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    await ask(controller, job)
    assert (Storage(settings.storage_root).pinned(job.id, STEP) / "run.json").read_text() == "run.json"


async def test_a_submission_whose_answer_was_lost_is_no_second_try(
    controller: Controller, ray: MemoryRay, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(controller, job)

    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exports, "submitted", die)
        with pytest.raises(KeyboardInterrupt):
            await step(controller)
    await step(controller)
    assert (await look(controller, job)).state is ExportState.RUNNING
    assert len(ray.drivers) == 1


async def test_a_lost_try_is_repeated_under_a_number_of_its_own_and_not_for_ever(
    controller: Controller, ray: MemoryRay, job: Job
) -> None:
    await ask(controller, job)
    for _ in range(controller.settings.max_attempts):
        await step(controller)
        await end(controller, ray, job, model=False)
        await step(controller)
    export = await look(controller, job)
    assert export.state is ExportState.FAILED
    assert "ended without a result" in (export.message or "")
    assert list(ray.drivers) == [f"export-{job.id}-50-1", f"export-{job.id}-50-2"]
    again = await ask(controller, job)
    assert (again.state, again.generation, again.failures) == (ExportState.REQUESTED, 3, 0)


async def test_what_a_try_says_is_told_and_what_an_earlier_one_said_is_not(
    controller: Controller, ray: MemoryRay, settings: Settings, job: Job
) -> None:
    await ask(controller, job)
    path = refusal_path(Storage(settings.storage_root).pinned(job.id, STEP))
    for generation, message in ((2, "of another try"), (1, "There is no model at /m.")):
        refusal = Refusal(generation=generation, code="model_not_found", message=message, fault=Fault.USER)
        path.write_text(refusal.model_dump_json())
        if generation == 2:
            await step(controller)
    await end(controller, ray, job, model=False)
    await step(controller)
    export = await look(controller, job)
    assert (export.state, export.message) == (ExportState.FAILED, "There is no model at /m.")


async def test_only_so_many_run_at_one_time(controller: Controller, ray: MemoryRay, settings: Settings) -> None:
    controller = replace(controller, settings=settings.model_copy(update={"max_running_exports": 2}))
    jobs = []
    async with controller.database.transaction() as session:
        jobs = [await add_job(session, state=JobState.RUNNING) for _ in range(3)]
    for job in jobs:
        write_checkpoint(settings, job)
        await ask(controller, job)
    await step(controller)
    assert len(ray.drivers) == 2
    await end(controller, ray, jobs[0], model=True)
    await step(controller)
    await step(controller)
    assert len(ray.drivers) == 3


async def test_an_exported_checkpoint_is_a_model_to_train_from_and_not_deleted_under_its_users(
    controller: Controller, ray: MemoryRay, settings: Settings, job: Job
) -> None:
    spec = AlignmentJob.model_validate(
        {"model": f"job:{job.id}:ckpt-step-{STEP}", "data": {"train": "file-" + "0" * 21}, "serve": False}
    )
    assert (spec.model.source, spec.model.job_id, spec.model.step) == (f"job:{job.id}@50", job.id, STEP)
    with pytest.raises(ModelNotFound, match="export"):
        await check_models(controller.database, settings, "ada", spec)
    await made(controller, ray, job)
    async with controller.database.transaction() as session:
        await hold_models(session, "ada", spec)
        user = await add_job(session, spec=spec.model_dump(mode="json"))
        job_row = await session.get_one(Job, job.id)
        job_row.state = JobState.FAILED
    for delete in (exports.delete_model, deletion.delete):
        arguments = (job.id, STEP) if delete is exports.delete_model else (job.id,)
        with pytest.raises(InvalidState, match=user.id):
            await delete(controller.database, settings, "ada", *arguments)  # type: ignore[operator]
    async with controller.database.transaction() as session:
        (await session.get_one(Job, user.id)).state = JobState.CANCELLED
    await exports.delete_model(controller.database, settings, "ada", job.id, STEP)
    assert not Storage(settings.storage_root).model(job.id, STEP).exists()
    with pytest.raises(ModelNotFound):
        await check_models(controller.database, settings, "ada", spec)


async def test_a_model_that_is_deployed_is_not_deleted_and_a_job_that_is_exported_neither(
    controller: Controller, ray: MemoryRay, settings: Settings, job: Job
) -> None:
    async with controller.database.transaction() as session:
        (await session.get_one(Job, job.id)).state = JobState.CANCELLED
    await ask(controller, job)
    with pytest.raises(InvalidState, match="being exported"):
        await deletion.delete(controller.database, settings, "ada", job.id)
    async with controller.database.transaction() as session:
        with pytest.raises(InvalidState, match="not exported"):
            await deployments.want(session, job, STEP)
    await made(controller, ray, job)
    async with controller.database.transaction() as session:
        assert (await deployments.want(session, job, STEP)).id == f"{job.id}@50"
    with pytest.raises(InvalidState, match=f"DELETE /v1/jobs/{job.id}/checkpoints/50/deployment"):
        await exports.delete_model(controller.database, settings, "ada", job.id, STEP)
    async with controller.database.transaction() as session:
        await deployments.removed(session, await deployments.unwant(session, job, STEP))
    await deletion.delete(controller.database, settings, "ada", job.id)
    assert not Storage(settings.storage_root).exported(job.id).exists()


async def test_what_a_crash_left_of_a_deletion_the_controller_removes(
    controller: Controller, ray: MemoryRay, settings: Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(controller, ray, job)

    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exports, "finish_deletion", die)
        with pytest.raises(KeyboardInterrupt):
            await exports.delete_model(controller.database, settings, "ada", job.id, STEP)
    with pytest.raises(InvalidState, match="being deleted"):
        await ask(controller, job)
    await step(controller)
    assert not Storage(settings.storage_root).model(job.id, STEP).exists()
    assert (await ask(controller, job)).state is ExportState.REQUESTED


async def test_a_project_whose_storage_is_full_gets_no_more_models(
    controller: Controller, ray: MemoryRay, job: Job, settings: Settings
) -> None:
    async with controller.database.transaction() as session:
        await projects.create(session, "ada", Quota(max_storage_bytes=3))
    assert (await made(controller, ray, job)).bytes == 5  # which was not known before
    async with controller.database.transaction() as session:
        other = await add_job(session, state=JobState.RUNNING)
    write_checkpoint(settings, other)
    with pytest.raises(QuotaExceeded):
        await ask(controller, other)
    assert not Storage(settings.storage_root).pinned(other.id, STEP).exists()


async def test_pins_that_a_crash_left_are_swept_and_those_that_are_needed_are_not(
    controller: Controller, ray: MemoryRay, settings: Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(settings.storage_root)
    pinned = storage.pinned(job.id, STEP)

    async def sweep(*, old: bool = True) -> bool:
        """Whether the pin is there after it."""
        if old:
            os.utime(pinned, (0, 0))
        await sweeping.sweep(controller.database, settings)
        return pinned.exists()

    assert pinning.pin(storage, job.id, STEP)  # and killed before there was a row
    unfinished = pinned.with_name(f".{pinned.name}-0123456789abcdef")
    unfinished.mkdir()
    os.utime(unfinished, (0, 0))
    assert await sweep(old=False)
    assert not unfinished.exists()
    assert not await sweep()
    monkeypatch.setattr(exporting, "unpin", lambda *_: None)  # killed between the model and the end of the pin
    await ask(controller, job)
    assert await sweep()
    await step(controller)
    assert await sweep()
    await end(controller, ray, job, model=True)
    await step(controller)
    assert (await look(controller, job)).state is ExportState.READY
    assert not await sweep()


async def test_a_deletion_that_is_finished_late_leaves_the_export_made_since_alone(
    controller: Controller, ray: MemoryRay, settings: Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = []

    async def noted(_: object, __: object, row: CheckpointExport) -> None:
        deleted.append(row)

    await made(controller, ray, job)
    with monkeypatch.context() as patch:
        patch.setattr(exports, "finish_deletion", noted)
        await exports.delete_model(controller.database, settings, "ada", job.id, STEP)
        await step(controller)
    assert len(deleted) == 2  # by the request and by the controller, which are slow
    await exports.finish_deletion(controller.database, settings, deleted[0])
    model = Storage(settings.storage_root).model(job.id, STEP)
    assert not model.exists()
    await ask(controller, job)
    await exports.finish_deletion(controller.database, settings, deleted[1])
    assert Storage(settings.storage_root).pinned(job.id, STEP).exists()
    ray.drivers.clear()
    await step(controller)
    await end(controller, ray, job, model=True)
    await step(controller)
    await exports.finish_deletion(controller.database, settings, deleted[1])
    assert model.exists()
    assert (await look(controller, job)).state is ExportState.READY
