"""Published models in an object store, against a server that speaks S3."""

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path

import boto3
import httpx
import pytest

from service.archive import archive as archiving
from service.archive import folder
from service.archive import local as bringing
from service.archive import sweep as sweeping
from service.archive.archive import archive, next_job
from service.archive.local import bring_models, local_model
from service.archive.manifest import NAME, Manifest, manifest_of
from service.archive.sweep import sweep
from service.cluster.http import connect
from service.controller import start
from service.controller.archive import Archive
from service.controller.context import Controller, make_controller
from service.controller.deploy import Deploy
from service.controller.export import Export
from service.db.session import Database
from service.db.tables import Attempt, Job
from service.deployments import service as deployments
from service.errors import ModelNotFound, ModelUnusable, Unavailable
from service.exports import service as exports
from service.jobs import deletion, published
from service.jobs.attempts import start_attempt
from service.jobs.repository import JobRepository
from service.jobs.service import cancel, submit
from service.jobs.states import DeploymentState, JobState
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from service.spec.layout import step_name
from tests.s3_server import keys
from tests.service.conftest import add_file, add_job, make_model
from tests.service.memory_ray import MemoryRay
from tests.service.memory_serve import MemoryServe

ROW = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
LONG_AGO = time.time() - 10 * 86400


@pytest.fixture
def settings(tmp_path: Path, database_url: str, empty_bucket: str) -> Settings:
    models_url = f"{empty_bucket}/models"
    options = {"models_url": models_url, "keep_model_copies_days": 2.0}
    return Settings(home=tmp_path, database_url=database_url, secret="a secret", **options)


async def a_model(database: Database, settings: Settings, **columns: object) -> Job:
    """A job that has published one, which nobody has used for long."""
    finished = {"state": JobState.SUCCEEDED, "finished_at": sweeping.utc_now()}
    async with database.transaction() as session:
        job = await add_job(session, **(finished | columns))
    directory = make_model(Storage(settings.storage_root).model(job.id))
    (directory / "tensorboard").mkdir()
    (directory / "tensorboard" / "curves").write_bytes(b"of training")
    os.utime(directory, (LONG_AGO, LONG_AGO))
    return job


async def an_archived_model(database: Database, settings: Settings, **columns: object) -> Job:
    job = await a_model(database, settings, **columns)
    assert await archive(database, settings, job)
    return await now(database, job)


async def now(database: Database, job: Job) -> Job:
    async with database.reading() as session:
        return await JobRepository(session).get(job.id)


async def brought(controller: Controller, attempt: Attempt) -> None:
    """What the controller's further steps do."""
    while True:
        try:
            return await start._bring(controller, attempt)
        except Unavailable:
            await asyncio.sleep(0.01)


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def spec_on(job: Job, file_id: str) -> AlignmentJob:
    return AlignmentJob.model_validate({"model": f"job:{job.id}", "data": {"train": file_id}})


async def test_a_model_is_copied_once_and_comes_back_as_it_was(database: Database, settings: Settings) -> None:
    job = await a_model(database, settings)
    directory = Storage(settings.storage_root).model(job.id)
    before = files_of(directory)
    found = await next_job(database)
    assert found is not None
    assert await archive(database, settings, found)
    assert await next_job(database) is None
    assert sorted(keys()) == sorted(f"models/{job.id}/{name}" for name in [*before, NAME])
    job = await now(database, job)
    assert job.model_bytes == sum(len(content) for content in before.values())

    assert await sweep(database, settings) == 1
    assert not directory.exists()
    assert await local_model(database, settings, job.id) == directory
    assert files_of(directory) == before
    assert await sweep(database, settings) == 0  # it has just been used
    assert list(Storage(settings.storage_root).passing_models.iterdir()) == []


async def test_a_copy_that_broke_off_is_no_model_and_is_made_again(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await a_model(database, settings)
    store = folder.bucket(str(settings.models_url))

    async def dies(content: bytes, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_bytes", dies)
        with pytest.raises(KeyboardInterrupt):
            await archive(database, settings, job)
    assert f"models/{job.id}/model.safetensors" in keys()
    found = await next_job(database)
    assert found is not None
    assert found.model_archive is None
    with pytest.raises(ModelUnusable, match="neither on the storage nor in the object store"):
        await folder.fetch(folder.address(str(settings.models_url), job.id), settings.home / "copy", job.id)
    assert await archive(database, settings, found)
    await folder.fetch(folder.address(str(settings.models_url), job.id), settings.home / "again", job.id)


async def test_a_model_deleted_while_it_is_copied_leaves_nothing(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await a_model(database, settings)
    put = folder.put

    async def put_late(url: str, directory: Path, manifest: Manifest) -> None:
        await put(url, directory, manifest)
        await published.delete(database, settings, "ada", job.id)
        await put(url, make_model(settings.home / "sent_late"), manifest.model_copy(update={"files": []}))

    monkeypatch.setattr(folder, "put", put_late)
    assert await archive(database, settings, job)
    assert (await now(database, job)).model_archive is None
    assert keys() == []


async def test_what_a_killed_process_sent_of_a_deleted_model_is_swept_and_others_are_left_alone(
    database: Database, settings: Settings
) -> None:
    job, kept = await a_model(database, settings), await an_archived_model(database, settings)
    unknown = "job-" + "0" * 21
    await published.delete(database, settings, "ada", job.id)
    for job_id in (job.id, unknown):
        boto3.client("s3").put_object(Bucket="team", Key=f"models/{job_id}/model.safetensors", Body=b"late")
    make_model(Storage(settings.storage_root).model(job.id))  # fetched by a process that died before it looked
    await sweep(database, settings)
    assert {key.split("/")[1] for key in keys()} == {kept.id, unknown}
    assert not Storage(settings.storage_root).model(job.id).exists()


@pytest.mark.parametrize("delete", [published.delete, deletion.delete])
async def test_a_deletion_that_a_crash_left_half_done_is_finished(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, delete: object
) -> None:
    job = await an_archived_model(database, settings)

    async def dies(url: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "remove", dies)
        with pytest.raises(KeyboardInterrupt):
            await delete(database, settings, "ada", job.id)  # type: ignore[operator]
    assert keys() != []
    await deletion.finish_deletions(database, settings)
    assert keys() == []
    assert not Storage(settings.storage_root).model(job.id).exists()
    assert (await now(database, job)).model_purged_at is not None


@pytest.mark.parametrize("damage", ["other bytes", "no file", "no manifest", "a path outside"])
async def test_a_damaged_copy_is_told_and_never_used(database: Database, settings: Settings, damage: str) -> None:
    job = await an_archived_model(database, settings)
    assert await sweep(database, settings) == 1
    client, prefix = boto3.client("s3"), f"models/{job.id}"
    match damage:
        case "other bytes":
            client.put_object(Bucket="team", Key=f"{prefix}/model.safetensors", Body=b"v")
        case "no file":
            client.delete_object(Bucket="team", Key=f"{prefix}/model.safetensors")
        case "no manifest":
            client.delete_object(Bucket="team", Key=f"{prefix}/{NAME}")
        case _:
            manifest = {"job_id": job.id, "files": [{"path": "../../x", "bytes": 1, "sha256": "0" * 64}]}
            client.put_object(Bucket="team", Key=f"{prefix}/{NAME}", Body=json.dumps(manifest).encode())
    with pytest.raises(ModelUnusable):
        await local_model(database, settings, job.id)
    with pytest.raises(ModelUnusable) as refused:
        await submit(database, settings, "ada", spec_on(job, await add_file(database, settings, ROW)))
    assert refused.value.extra["field"] == "model"
    assert not Storage(settings.storage_root).model(job.id).exists()


async def test_many_who_ask_at_once_get_one_copy_and_who_does_not_wait_is_told_to_come_again(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await an_archived_model(database, settings)
    await sweep(database, settings)
    fetch, fetched, go = folder.fetch, [], asyncio.Event()
    copy_of, looked = bringing._copy_of, asyncio.Semaphore(0)

    async def counted(url: str, target: Path, job_id: str) -> None:
        fetched.append(url)
        await go.wait()
        await fetch(url, target, job_id)

    async def noted(database: Database, job_id: str, step: int | None) -> object:
        copy = await copy_of(database, job_id, step)
        looked.release()  # from here to the wait for the copy nobody else has a turn
        return copy

    monkeypatch.setattr(folder, "fetch", counted)
    monkeypatch.setattr(bringing, "_copy_of", noted)
    with pytest.raises(Unavailable, match="try again"):
        await local_model(database, settings, job.id, wait_s=0)
    waiting = [asyncio.create_task(local_model(database, settings, job.id)) for _ in range(3)]
    for _ in range(4):  # the first, which has gone, and these
        await looked.acquire()
    waiting[0].cancel()  # a client that hangs up
    go.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(one, Path) for one in done] == [False, True, True]
    assert len(fetched) == 1


async def test_a_model_deleted_while_it_comes_back_is_not_kept(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await an_archived_model(database, settings)
    await sweep(database, settings)
    fetch = folder.fetch

    async def fetch_late(url: str, target: Path, job_id: str) -> None:
        await fetch(url, target, job_id)
        await published.delete(database, settings, "ada", job.id)

    monkeypatch.setattr(folder, "fetch", fetch_late)
    with pytest.raises(ModelNotFound, match="was deleted"):
        await local_model(database, settings, job.id)
    assert not Storage(settings.storage_root).model(job.id).exists()


async def test_what_a_job_or_a_deployment_reads_is_not_evicted(database: Database, settings: Settings) -> None:
    base = await an_archived_model(database, settings)
    with_adapter = await a_model(database, settings)
    adapter = Storage(settings.storage_root).model(with_adapter.id) / "adapter"
    adapter.mkdir()
    path = str(Storage(settings.storage_root).model(base.id))
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": path}))
    await archive(database, settings, with_adapter)
    method = {"type": "lora", "continue_adapter": True}
    on_adapter = {"model": f"job:{with_adapter.id}", "data": {"train": "file-" + "0" * 21}}
    spec = AlignmentJob.model_validate(on_adapter | {"training": {"method": method}}).model_dump(mode="json")
    async with database.transaction() as session:
        user = await add_job(session, spec=spec)
    for model in (base, with_adapter):
        os.utime(Storage(settings.storage_root).model(model.id), (LONG_AGO, LONG_AGO))
    assert await sweep(database, settings) == 0
    await cancel(database, "ada", user.id)
    async with database.transaction() as session:
        await deployments.want(session, base)
    assert await sweep(database, settings) == 1
    assert Storage(settings.storage_root).model(base.id).exists()
    assert not Storage(settings.storage_root).model(with_adapter.id).exists()

    async with database.transaction() as session:
        for row in await deployments.all_deployments(session):
            await session.delete(row)
    os.utime(Storage(settings.storage_root).model(base.id), (LONG_AGO, LONG_AGO))
    assert await sweep(database, settings) == 1
    await bring_models(database, settings, AlignmentJob.model_validate(spec))
    assert Storage(settings.storage_root).model(base.id).exists()


async def test_a_model_that_is_nowhere_else_is_not_evicted(database: Database, settings: Settings) -> None:
    job = await a_model(database, settings)
    assert await sweep(database, settings) == 0
    assert Storage(settings.storage_root).model(job.id).exists()


async def test_an_attempt_is_submitted_when_its_model_is_back(database: Database, settings: Settings) -> None:
    model = await an_archived_model(database, settings)
    job, _ = await submit(database, settings, "ada", spec_on(model, await add_file(database, settings, ROW)))
    async with database.transaction() as session:
        attempt = await start_attempt(session, await JobRepository(session).get(job.id))
    directory = Storage(settings.storage_root).model(model.id)
    directory.rename(settings.home / "lost")
    async with connect(settings) as client:
        controller = make_controller(settings, database, client)
        with pytest.raises(Unavailable):
            await start._bring(controller, attempt)
        await brought(controller, attempt)
        assert directory.exists()


async def test_an_export_waits_for_the_model_under_its_checkpoint_which_is_then_kept(
    database: Database, settings: Settings
) -> None:
    base = await an_archived_model(database, settings)
    directory = Storage(settings.storage_root).model(base.id)
    spec = spec_on(base, "file-" + "0" * 21).model_dump(mode="json")
    async with database.transaction() as session:
        job = await add_job(session, spec=spec, state=JobState.FAILED)
    checkpoint = Storage(settings.storage_root).checkpoints(job.id) / step_name(1)
    checkpoint.mkdir(parents=True)
    await sweep(database, settings)
    assert not directory.exists()
    await exports.request(database, settings, "ada", job.id, 1)
    async with httpx.AsyncClient(transport=(ray := MemoryRay()), base_url="http://ray") as client:
        controller = make_controller(settings, database, client)
        with pytest.raises(Unavailable):
            await Export().reconcile(controller)
        assert not ray.drivers
        async with asyncio.timeout(20):
            while not ray.drivers:
                with contextlib.suppress(Unavailable):
                    await Export().reconcile(controller)
                await asyncio.sleep(0.01)
    assert directory.exists()
    os.utime(directory, (LONG_AGO, LONG_AGO))
    assert await sweep(database, settings) == 0


async def test_a_job_whose_model_cannot_be_brought_back_fails_and_says_why(
    database: Database, settings: Settings
) -> None:
    model = await an_archived_model(database, settings)
    job, _ = await submit(database, settings, "ada", spec_on(model, await add_file(database, settings, ROW)))
    async with database.transaction() as session:
        attempt = await start_attempt(session, await JobRepository(session).get(job.id))
    Storage(settings.storage_root).model(model.id).rename(settings.home / "lost")
    await folder.remove(str(model.model_archive))
    async with connect(settings) as client:
        controller = make_controller(settings, database, client)
        with pytest.raises(ModelUnusable) as refused:
            await brought(controller, attempt)
        await start._fail(controller, attempt, refused.value)
    job = await now(database, job)
    assert (job.state, job.error and job.error["code"]) == (JobState.FAILED, "model_unusable")


async def test_a_deployment_waits_for_its_model_and_fails_with_the_reason_if_that_is_damaged(
    database: Database, settings: Settings
) -> None:
    whole, damaged = await an_archived_model(database, settings), await an_archived_model(database, settings)
    await folder.remove(str(damaged.model_archive))
    await sweep(database, settings)
    async with database.transaction() as session:
        for job in (whole, damaged):
            await deployments.want(session, job)
    async with httpx.AsyncClient(transport=MemoryServe(), base_url="http://ray") as client:
        controller = make_controller(settings, database, client)
        deploy, told = Deploy(), set()
        async with asyncio.timeout(20):
            while True:
                await deploy.reconcile(controller)
                async with database.reading() as session:
                    rows = await deployments.find_many(session, [whole.id, damaged.id])
                told.add(rows[whole.id].message)
                if rows[whole.id].places and rows[damaged.id].state is DeploymentState.FAILED:
                    break
                await asyncio.sleep(0.01)
    assert any("copied from the object store" in (message or "") for message in told)
    assert rows[whole.id].state is DeploymentState.DEPLOYING
    assert damaged.id in (rows[damaged.id].message or "")
    assert Storage(settings.storage_root).model(whole.id).is_dir()


async def test_a_model_that_cannot_be_read_is_left_for_later_and_the_next_one_is_copied(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, whole = await a_model(database, settings), await a_model(database, settings)

    def read(job_id: str, directory: Path) -> Manifest:
        if job_id == damaged.id:
            raise PermissionError(13, "Permission denied")
        return manifest_of(job_id, directory)

    archive = Archive()
    async with connect(settings) as client:
        controller = make_controller(settings, database, client)
        with monkeypatch.context() as patch:
            patch.setattr(archiving, "manifest_of", read)
            for _ in range(3):
                await archive.reconcile(controller)
        assert (await now(database, whole)).model_archive is not None
        assert (await now(database, damaged)).model_archive is None
        archive.unreadable[damaged.id], archive.looked_at = 0.0, None  # later
        await archive.reconcile(controller)
    assert (await now(database, damaged)).model_archive is not None


async def test_a_bucket_that_is_not_there_is_no_lost_model(database: Database, settings: Settings) -> None:
    job = await a_model(database, settings)
    elsewhere = settings.model_copy(update={"models_url": "s3://nowhere/models"})
    with pytest.raises(Unavailable):
        await archive(database, elsewhere, job)
    assert await next_job(database) is not None
