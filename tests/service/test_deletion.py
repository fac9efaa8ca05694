from pathlib import Path

import pytest
from sqlalchemy import func, select

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Event, Job, Metric
from service.deployments import service as deployments
from service.errors import IdempotencyConflict, InvalidState, NotFound
from service.jobs import deletion, published
from service.jobs.repository import JobRepository, append_event
from service.jobs.service import submit
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from tests.service.conftest import add_file, add_job, make_model


async def ended(database: Database, settings: Settings, **columns: object) -> Job:
    """A job with a model, a checkpoint, an event and a metric."""
    async with database.transaction() as session:
        job = await add_job(session, **({"state": JobState.SUCCEEDED} | columns))
        await append_event(session, job, "job.succeeded", "The model is published.")
        session.add(Metric(job_id=job.id, number=1, attempt=1, split="train", step=1, values={}, created_at=utc_now()))
    make_model(Storage(settings.storage_root).model(job.id))
    checkpoint = Storage(settings.storage_root).checkpoints(job.id) / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.json").write_text("{}")
    return job


async def left(database: Database, settings: Settings, job: Job) -> tuple[list[Path], int]:
    """The job's directories, and the number of its events and metrics."""
    storage = Storage(settings.storage_root)
    async with database.reading() as session:
        rows = [
            (await session.scalars(select(func.count()).select_from(table).where(table.job_id == job.id))).one()
            for table in (Event, Metric)
        ]
    return [path for path in (storage.model(job.id), storage.run(job.id)) if path.exists()], sum(rows)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
async def test_an_ended_job_goes_with_all_that_it_made(database: Database, settings: Settings, state: JobState) -> None:
    job = await ended(database, settings, state=state)
    for _ in range(2):  # again, after a lost answer
        await deletion.delete(database, settings, "ada", job.id)
    assert await left(database, settings, job) == ([], 0)
    async with database.reading() as session:
        assert await JobRepository(session).page("ada", limit=5) == ([], None)
        with pytest.raises(NotFound):
            await JobRepository(session).get_in_project(job.id, "ada")


async def test_what_a_crash_left_of_a_deletion_is_removed_later(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await ended(database, settings)

    def dies(directory: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(published, "remove_directory", dies)
    with pytest.raises(KeyboardInterrupt):
        await deletion.delete(database, settings, "ada", job.id)
    monkeypatch.undo()
    assert len((await left(database, settings, job))[0]) == 2
    async with database.reading() as session:
        with pytest.raises(NotFound):
            await JobRepository(session).get_in_project(job.id, "ada")

    await deletion.finish_deletions(database, settings)
    assert await left(database, settings, job) == ([], 0)
    await deletion.finish_deletions(database, settings)


@pytest.mark.parametrize("state", [state for state in JobState if not state.terminal])
async def test_a_job_that_has_not_ended_is_kept(database: Database, settings: Settings, state: JobState) -> None:
    job = await ended(database, settings, state=state)
    with pytest.raises(InvalidState, match=state):
        await deletion.delete(database, settings, "ada", job.id)
    assert await left(database, settings, job) != ([], 0)


async def test_a_model_that_is_needed_keeps_its_job(database: Database, settings: Settings) -> None:
    deployed = await ended(database, settings)
    async with database.transaction() as session:
        await deployments.want(session, await JobRepository(session).get(deployed.id))
    with pytest.raises(InvalidState, match="deployed"):
        await deletion.delete(database, settings, "ada", deployed.id)

    base = await ended(database, settings)
    on_top = AlignmentJob.model_validate({"model": f"job:{base.id}", "data": {"train": "file-" + "0" * 21}})
    user = await ended(database, settings, spec=on_top.model_dump(mode="json"))
    with pytest.raises(InvalidState, match=user.id):
        await deletion.delete(database, settings, "ada", base.id)
    await deletion.delete(database, settings, "ada", user.id)
    await deletion.delete(database, settings, "ada", base.id)


async def test_nobody_deletes_the_job_of_another_project(database: Database, settings: Settings) -> None:
    job = await ended(database, settings)
    for _ in range(2):
        with pytest.raises(NotFound):
            await deletion.delete(database, settings, "bob", job.id)
        await deletion.delete(database, settings, "ada", job.id)


async def test_the_key_of_a_deleted_job_makes_no_other_one(database: Database, settings: Settings) -> None:
    model = make_model(settings.storage_root / "models" / "tiny")
    file_id = await add_file(database, settings, b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n')
    spec = AlignmentJob.model_validate({"model": str(model), "data": {"train": file_id}})
    job, _ = await submit(database, settings, "ada", spec, "once")
    async with database.transaction() as session:
        row = await JobRepository(session).get(job.id)
        row.state = JobState.FAILED
    await deletion.delete(database, settings, "ada", job.id)
    with pytest.raises(IdempotencyConflict, match="deleted"):
        await submit(database, settings, "ada", spec, "once")
