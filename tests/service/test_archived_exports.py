"""Exported checkpoints in an object store, against a server that speaks S3."""

import os
from pathlib import Path

import boto3
import pytest

from service.archive import exported as archiving
from service.archive import folder
from service.archive.exported import next_export
from service.archive.local import bring_models, local_model
from service.archive.manifest import NAME, Manifest
from service.archive.sweep import sweep
from service.cluster.http import connect
from service.controller.archive import Archive
from service.controller.context import make_controller
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.errors import ModelNotFound
from service.exports import service as exports
from service.jobs import deletion
from service.jobs.states import ExportState, JobState
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from tests.s3_server import keys
from tests.service.conftest import add_job, make_model
from tests.service.test_archive import LONG_AGO, files_of
from tests.service.test_archive import settings as settings
from tests.service.test_exports import STEP, write_checkpoint


async def an_export(database: Database, settings: Settings, job: Job) -> CheckpointExport:
    """Ready, and unused for long."""
    await exports.request(database, settings, "ada", job.id, STEP)
    directory = make_model(model_of(settings, job))
    os.utime(directory, (LONG_AGO, LONG_AGO))
    async with database.transaction() as session:
        export = await exports.find(session, job.id, STEP)
        assert export is not None
        await exports.succeeded(session, export, 5)
    return export


def model_of(settings: Settings, job: Job) -> Path:
    return Storage(settings.storage_root).model(job.id, STEP)


async def copied(database: Database, settings: Settings) -> None:
    """The controller copies all that it can."""
    async with connect(settings) as client:
        archive, controller = Archive(), make_controller(settings, database, client)
        while archive.looked_at is None:
            await archive.reconcile(controller)


@pytest.fixture
async def job(database: Database, settings: Settings) -> Job:
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.FAILED)
    write_checkpoint(settings, job)
    return job


async def test_an_exported_checkpoint_is_copied_once_and_comes_back_for_a_job_that_starts_from_it(
    database: Database, settings: Settings, job: Job
) -> None:
    await an_export(database, settings, job)
    before = files_of(model_of(settings, job))
    await copied(database, settings)
    assert await next_export(database) is None
    assert sorted(keys()) == sorted(f"models/{job.id}@{STEP}.1/{name}" for name in [*before, NAME])

    assert await sweep(database, settings) == 1
    assert not model_of(settings, job).exists()
    spec = AlignmentJob.model_validate({"model": f"job:{job.id}@{STEP}", "data": {"train": "file-" + "0" * 21}})
    await bring_models(database, settings, spec)
    assert files_of(model_of(settings, job)) == before
    assert await sweep(database, settings) == 0  # it has just been used


async def test_the_copy_of_an_exported_checkpoint_stays_while_it_is_deployed_or_trained_from(
    database: Database, settings: Settings, job: Job
) -> None:
    await an_export(database, settings, job)
    await copied(database, settings)
    spec = AlignmentJob.model_validate({"model": f"job:{job.id}@{STEP}", "data": {"train": "file-" + "0" * 21}})
    async with database.transaction() as session:
        user = await add_job(session, spec=spec.model_dump(mode="json"))
    assert await sweep(database, settings) == 0
    async with database.transaction() as session:
        (await session.get_one(Job, user.id)).state = JobState.CANCELLED
        await deployments.want(session, job, STEP)
    assert await sweep(database, settings) == 0
    async with database.transaction() as session:
        await deployments.removed(session, await deployments.unwant(session, job, STEP))
    assert await sweep(database, settings) == 1


@pytest.mark.parametrize("whole_job", [False, True])
async def test_a_deleted_export_leaves_nothing_in_the_object_store(
    database: Database, settings: Settings, job: Job, whole_job: bool
) -> None:
    await an_export(database, settings, job)
    await copied(database, settings)
    assert keys()
    if whole_job:
        await deletion.delete(database, settings, "ada", job.id)
    else:
        await exports.delete_model(database, settings, "ada", job.id, STEP)
    assert keys() == []


async def test_an_export_deleted_while_it_is_copied_leaves_nothing_and_the_next_one_is_another(
    database: Database, settings: Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await an_export(database, settings, job)
    put = folder.put

    async def put_late(url: str, directory: Path, manifest: Manifest) -> None:
        await exports.delete_model(database, settings, "ada", job.id, STEP)
        await an_export(database, settings, job)
        await put(url, directory, manifest)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "put", put_late)
        assert await archiving.archive_export(database, settings, first)
    assert keys() == []
    await copied(database, settings)
    assert {key.split("/")[1] for key in keys()} == {f"{job.id}@{STEP}.2"}


async def test_a_model_deleted_while_it_comes_back_is_not_put_in_the_place_of_the_next_export(
    database: Database, settings: Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    await an_export(database, settings, job)
    await copied(database, settings)
    await sweep(database, settings)
    fetch = folder.fetch

    async def fetch_late(url: str, target: Path, name: str) -> None:
        await fetch(url, target, name)
        await exports.delete_model(database, settings, "ada", job.id, STEP)
        await exports.request(database, settings, "ada", job.id, STEP)

    monkeypatch.setattr(folder, "fetch", fetch_late)
    with pytest.raises(ModelNotFound, match="was deleted"):
        await local_model(database, settings, job.id, STEP)
    assert not model_of(settings, job).exists()


async def test_what_a_killed_process_sent_of_a_deleted_export_is_swept_and_others_are_left_alone(
    database: Database, settings: Settings, job: Job
) -> None:
    await an_export(database, settings, job)
    await copied(database, settings)
    unknown = "job-" + "0" * 21
    for name in (f"{job.id}@{STEP}.9", f"{unknown}@{STEP}.1"):
        boto3.client("s3").put_object(Bucket="team", Key=f"models/{name}/model.safetensors", Body=b"late")
    await sweep(database, settings)
    assert {key.split("/")[1] for key in keys()} == {f"{job.id}@{STEP}.1", f"{unknown}@{STEP}.1"}


async def test_a_checkpoint_that_is_exported_again_after_its_deletion_goes_on_counting_its_tries(
    database: Database, settings: Settings, job: Job
) -> None:
    await an_export(database, settings, job)
    await exports.delete_model(database, settings, "ada", job.id, STEP)
    async with database.reading() as session:
        assert await exports.of_job(session, job.id) == []
    again = await exports.request(database, settings, "ada", job.id, STEP)
    assert (again.state, again.generation, again.failures) == (ExportState.REQUESTED, 2, 0)
