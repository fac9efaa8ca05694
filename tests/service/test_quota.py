"""Quotas: what is refused at once, what waits, and that two that ask at once do not both get the last of it."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Attempt, Job
from service.errors import QuotaExceeded
from service.ids import new_id
from service.jobs import service as jobs
from service.jobs.repository import JobRepository
from service.jobs.states import AttemptState, JobState
from service.projects import service as projects
from service.projects.quota import Quota, Usage, gpus_held, never_fits, reason_to_wait
from service.projects.usage import measure_models, quota_of, usage
from service.settings import Settings
from service.spec import AlignmentJob
from tests.service.conftest import add_file, add_job, make_model

ROW = b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n'
NOTHING = Usage(live_jobs=0, running_jobs=0, gpus=0, gpu_hours_month=0, storage_bytes=0)


async def limit(database: Database, **limits: float) -> None:
    async with database.transaction() as session:
        await projects.ensure(session, "ada")
        await projects.set_quota(session, "ada", Quota.model_validate(limits))


async def spec_of(database: Database, settings: Settings, **resources: object) -> AlignmentJob:
    model = settings.storage_root / "models" / "tiny"
    if not model.exists():
        make_model(model)
    file_id = await add_file(database, settings, ROW)
    return AlignmentJob.model_validate({"model": str(model), "data": {"train": file_id}, "resources": resources})


async def test_of_two_posts_at_once_one_takes_the_last_place(database: Database, settings: Settings) -> None:
    spec = await spec_of(database, settings)
    await limit(database, max_live_jobs=1)
    submitted = [jobs.submit(database, settings, "ada", spec) for _ in range(4)]
    results = await asyncio.gather(*submitted, return_exceptions=True)
    refused = [result for result in results if isinstance(result, QuotaExceeded)]
    assert len(refused) == 3
    assert refused[0].extra == {"quota": "max_live_jobs", "used": 1, "asked": 1, "limit": 1}
    async with database.reading() as session:
        assert (await usage(session, "ada")).live_jobs == 1


async def test_the_same_key_twice_at_once_is_one_job_under_a_limit_of_one(
    database: Database, settings: Settings
) -> None:
    spec = await spec_of(database, settings)
    await limit(database, max_live_jobs=1)
    made = await asyncio.gather(*(jobs.submit(database, settings, "ada", spec, "key") for _ in range(3)))
    assert len({job.id for job, _ in made}) == 1
    assert [replayed for _, replayed in made].count(False) == 1


async def test_of_two_uploads_at_once_one_takes_the_last_bytes(database: Database, settings: Settings) -> None:
    await limit(database, max_storage_bytes=15)
    uploads = [add_file(database, settings, b"ten bytes!") for _ in range(2)]
    results = await asyncio.gather(*uploads, return_exceptions=True)
    (refused,) = [result for result in results if isinstance(result, QuotaExceeded)]
    assert refused.extra == {"quota": "max_storage_bytes", "used": 10, "asked": 10, "limit": 15}
    assert len(list((settings.storage_root / "files").iterdir())) == 1, "the refused bytes are gone"


async def test_published_models_count_until_they_are_deleted(database: Database, settings: Settings) -> None:
    async with database.transaction() as session:
        kept = await add_job(session, state=JobState.SUCCEEDED)
        await add_job(session, state=JobState.SUCCEEDED, model_deleted_at=utc_now(), model_bytes=500)
    size = sum(path.stat().st_size for path in make_model(settings.storage_root / "models" / kept.id).iterdir())
    await measure_models(database, settings, "ada", limited=False)
    async with database.reading() as session:
        assert (await usage(session, "ada")).storage_bytes == size
    await limit(database, max_storage_bytes=size)
    with pytest.raises(QuotaExceeded):
        await add_file(database, settings, b"1")


async def test_gpu_hours_count_from_the_first_of_the_month(database: Database) -> None:
    now = utc_now()
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    async with database.transaction() as session:
        job = await add_job(session, gpus=4.0, state=JobState.RUNNING, num_attempts=3)
        other = await add_job(session, gpus=4.0, project_id="bob")
        for number, (owner, began, ended) in enumerate(
            [
                (job, month - timedelta(hours=9), month - timedelta(hours=8)),  # last month's
                (job, month - timedelta(hours=9), month + timedelta(seconds=1)),  # one second of it counts
                (job, now, None),  # has just begun
                (other, month, now),
            ],
            start=1,
        ):
            session.add(_attempt(owner, number, began, ended))
    async with database.reading() as session:
        used = await usage(session, "ada")
    assert used.gpu_hours_month == pytest.approx(4 / 3600, abs=0.02)
    assert (used.gpus, used.running_jobs) == (4, 1)


def _attempt(job: Job, number: int, began: object, ended: object) -> Attempt:
    return Attempt(
        id=new_id("attempt"),
        job_id=job.id,
        number=number,
        state=AttemptState.FAILED if ended else AttemptState.RUNNING,
        created_at=began,
        finished_at=ended,
    )


async def test_a_job_waits_while_its_project_runs_what_it_may(database: Database) -> None:
    await limit(database, max_running_jobs=1, max_gpus=4)
    async with database.transaction() as session:
        running = await add_job(session, state=JobState.RUNNING, gpus=2.0)
        await add_job(session, gpus=3.0, project_id="bob", state=JobState.RUNNING)
        quota = await quota_of(session, "ada")
        shortage = reason_to_wait(quota, await usage(session, "ada"), 3)
        assert shortage is not None
        assert (shortage.quota, shortage.used, shortage.limit) == ("max_running_jobs", 1, 1)
        (await JobRepository(session).get(running.id)).state = JobState.SUCCEEDED
        await session.flush()
        assert reason_to_wait(quota, await usage(session, "ada"), 3) is None


def test_what_can_never_run_is_refused_and_what_can_waits() -> None:
    quota = Quota(max_running_jobs=1, max_gpus=4, max_gpu_hours_month=10)
    busy = NOTHING.model_copy(update={"running_jobs": 1, "gpus": 4.0})
    assert never_fits(quota, busy, 4) is None
    assert reason_to_wait(quota, busy, 4) is not None
    assert (never_fits(quota, NOTHING, 5) or pytest.fail("5 of 4")).quota == "max_gpus"
    spent = NOTHING.model_copy(update={"gpu_hours_month": 10.0})
    assert (never_fits(quota, spent, 1) or pytest.fail("spent")).quota == "max_gpu_hours_month"
    assert never_fits(quota, spent, 0) is None, "a job without GPUs takes no GPU-hours"
    assert never_fits(Quota(), busy, 1000) is None


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({}, 2),
        ({"reference_placement": "policy"}, 1),
        ({"policy": {"workers": 4}, "reference": {"workers": 2, "gpus_per_worker": 0.5}}, 5),
        ({"policy": {"gpus_per_worker": 0}, "reference": {"gpus_per_worker": 0}}, 0),
    ],
)
def test_a_job_holds_the_gpus_of_its_workers_and_scorers(resources: dict[str, object], gpus: float) -> None:
    job = {"model": "/m", "data": {"train": "file-" + "0" * 21}, "resources": resources}
    assert gpus_held(AlignmentJob.model_validate(job), unset=1) == gpus


def test_a_model_in_slices_scores_itself_and_holds_no_scorers() -> None:
    job = {"model": "/m", "data": {"train": "file-" + "0" * 21}, "training": {"parallelism": "fsdp"}}
    sliced = AlignmentJob.model_validate(job | {"resources": {"policy": {"workers": 4}}})
    assert gpus_held(sliced, unset=1) == 4


async def test_an_upgrade_gives_projects_to_the_keys_that_are_there(tmp_path: Path) -> None:
    from alembic import command
    from sqlalchemy import Connection, text

    from service.db.migrate import _config, upgrade

    url = f"sqlite+aiosqlite:///{tmp_path / 'old.sqlite3'}"
    database = Database(url)

    def before(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        connection.execute(
            text(
                "INSERT INTO api_keys (id, project_id, name, digest, created_at) "
                "VALUES ('key-1', 'Lab One', '', 'd', '2026-01-01 00:00:00')"
            )
        )

    async with database.engine.begin() as connection:
        await connection.run_sync(before)
    await asyncio.to_thread(upgrade, url)
    async with database.reading() as session:
        assert (await projects.get(session, "Lab One")).quota == {}
    await database.close()
