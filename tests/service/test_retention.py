import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service import audit
from service.clock import utc_now
from service.cluster.http import connect
from service.controller.context import make_controller
from service.controller.retain import Retain
from service.db.session import Database
from service.db.tables import Event, File, Job, Metric
from service.db.webhook_tables import Webhook, WebhookDelivery
from service.errors import DataReportMissing
from service.jobs.repository import allocate, append_event
from service.jobs.service import data_report
from service.jobs.states import JobState
from service.projects import service as projects
from service.retention import deliveries, logs, runs, uploads
from service.retention.policy import Retention
from service.settings import Settings
from service.spec import Storage
from service.webhooks import service as webhooks
from service.webhooks.request import WebhookCreate
from tests.service.conftest import add_file, add_job

LONG_AGO = utc_now() - timedelta(days=100)
BEFORE = utc_now() - timedelta(days=50)


async def add_logs(database: Database, num_old: int, num_new: int = 0, **columns: Any) -> Job:
    """A job with so many events and metrics from long ago and from now; it ended long ago if nothing else is said."""
    async with database.transaction() as session:
        job = await add_job(session, **({"state": JobState.FAILED, "finished_at": LONG_AGO} | columns))
        for count, at in ((num_old, LONG_AGO), (num_new, utc_now())):
            for _ in range(count):
                number = await allocate(session, job, "last_metric", 1)
                session.add(
                    Metric(
                        job_id=job.id, number=number, attempt=1, split="train", step=number, values={}, created_at=at
                    )
                )
                number = await append_event(session, job, "data.prepared", "")
                event = await session.get(Event, (job.id, number))
                assert event is not None
                event.created_at = at
    return job


async def left(database: Database, log: type[Event] | type[Metric], job: Job) -> list[int]:
    async with database.reading() as session:
        found = select(log.number).where(log.job_id == job.id).order_by(log.number)
        return list((await session.scalars(found)).all())


async def look(database: Database, job: Job) -> Job:
    async with database.reading() as session:
        return (await session.scalars(select(Job).where(Job.id == job.id))).one()


@pytest.mark.parametrize("log", [Event, Metric])
async def test_old_rows_of_finished_jobs_go_in_steps_and_their_numbers_stay_given_out(
    database: Database, monkeypatch: pytest.MonkeyPatch, log: type[Event] | type[Metric]
) -> None:
    monkeypatch.setattr(logs, "_CHUNK", 3)
    job = await add_logs(database, 7, 2)
    finished_lately = await add_logs(database, 2, finished_at=utc_now())
    running = await add_logs(database, 2, state=JobState.RUNNING, finished_at=None)

    assert await logs.sweep(database, log, BEFORE) == 7
    assert await logs.sweep(database, log, BEFORE) == 0
    assert await left(database, log, job) == [8, 9]
    assert await left(database, log, finished_lately) == await left(database, log, running) == [1, 2]
    seen = await look(database, job)
    assert (seen.events_removed_to, seen.metrics_removed_to) == ((7, 0) if log is Event else (0, 7))
    async with database.transaction() as session:
        assert await append_event(session, seen, "job.failed", "") == 10


async def test_two_controllers_may_sweep_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_CHUNK", 1)
    job = await add_logs(database, 6)
    removed = await asyncio.gather(*(logs.sweep(database, Event, BEFORE) for _ in range(2)))
    assert sum(removed) == 6
    assert await left(database, Event, job) == []


async def test_a_data_report_that_was_removed_says_so(database: Database) -> None:
    job = await add_logs(database, 1)
    await logs.sweep(database, Event, BEFORE)
    async with database.reading() as session:
        with pytest.raises(DataReportMissing, match="removed by retention"):
            await data_report(session, "ada", job.id)


async def test_uploads_go_that_no_job_needed_for_long(database: Database, settings: Settings) -> None:
    async def upload(used_by: dict[str, Any] | None = None) -> str:
        file_id = await add_file(database, settings, b"x")
        async with database.transaction() as session:
            (await session.scalars(select(File).where(File.id == file_id))).one().created_at = LONG_AGO
            if used_by is not None:
                job = await add_job(session, **used_by)
                job.spec = job.spec | {"data": job.spec["data"] | {"train": file_id}}
        return file_id

    ended = {"state": JobState.SUCCEEDED}
    gone = {await upload(), await upload(ended | {"finished_at": LONG_AGO})}
    kept = {await upload({"state": JobState.QUEUED}), await upload(ended | {"finished_at": utc_now()})}
    kept.add(await add_file(database, settings, b"new"))

    assert await uploads.sweep(database, settings, BEFORE) == len(gone)
    async with database.reading() as session:
        entries, _ = await audit.page(session, "ada", limit=10, cursor=None)
    assert {(entry.action, entry.target, entry.key_id) for entry in entries} == {
        ("retention", file_id, None) for file_id in gone
    }
    assert {path.name for path in Storage(settings.storage_root).files.iterdir()} == kept
    assert await uploads.sweep(database, settings, BEFORE) == 0


def add_run(settings: Settings, job: Job) -> Path:
    checkpoints = Storage(settings.storage_root).run(job.id) / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "weights").write_text("w")
    return checkpoints.parent


async def test_checkpoints_of_a_finished_job_are_removed_once_and_its_events_say_so(
    database: Database, settings: Settings
) -> None:
    old, lately = await add_logs(database, 0), await add_logs(database, 0, finished_at=utc_now())
    nothing_left = await add_logs(database, 0)
    directories = [add_run(settings, job) for job in (old, lately)]
    model = Storage(settings.storage_root).model(old.id)
    model.mkdir(parents=True)

    assert await runs.sweep(database, settings, BEFORE) == 1
    assert [directory.exists() for directory in directories] == [False, True]
    assert model.exists()
    assert list(Storage(settings.storage_root).removed_runs.iterdir()) == []
    assert len(await left(database, Event, old)) == 1
    assert await left(database, Event, nothing_left) == []
    assert await runs.sweep(database, settings, BEFORE) == 0


async def test_a_job_that_was_taken_up_again_loses_its_files_only_after_its_next_end(
    database: Database, settings: Settings
) -> None:
    job = await add_logs(database, 0)
    await runs.sweep(database, settings, BEFORE)
    directory = add_run(settings, job)
    for state, finished_at, stays in [(JobState.RUNNING, None, True), (JobState.FAILED, LONG_AGO, False)]:
        async with database.transaction() as session:
            again = (await session.scalars(select(Job).where(Job.id == job.id))).one()
            again.state, again.finished_at = state, finished_at
            again.run_removed_at = LONG_AGO - timedelta(days=1)
        await runs.sweep(database, settings, BEFORE)
        assert directory.exists() is stays


async def test_what_a_killed_sweep_has_set_aside_is_deleted_by_the_next(database: Database, settings: Settings) -> None:
    aside = Storage(settings.storage_root).removed_runs / "job-1.ab"
    (aside / "checkpoints").mkdir(parents=True)
    await runs.sweep(database, settings, BEFORE)
    assert not aside.exists()


async def test_old_deliveries_go_and_so_do_those_whose_webhook_has_gone(database: Database, settings: Settings) -> None:
    await webhooks.create(database, settings, "ada", WebhookCreate(url="https://a.example.com/", event_types=["*"]))
    await add_logs(database, 0, 3)
    async with database.transaction() as session:
        old, _, orphan = (await session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id))).all()
        old.created_at, orphan.webhook_id = LONG_AGO, "webhook-" + "0" * 21
    assert await deliveries.sweep(database, BEFORE) == 2
    async with database.reading() as session:
        assert len((await session.scalars(select(WebhookDelivery))).all()) == 1
        assert len((await session.scalars(select(Webhook))).all()) == 1


async def test_the_controller_removes_what_the_settings_say_and_nothing_without_them(
    database: Database, settings: Settings
) -> None:
    job = await add_logs(database, 2)
    client = connect(settings)
    forever = settings.model_copy(update={"keep_checkpoints_days": None})
    days = settings.model_copy(update={"keep_events_days": 50.0})
    for kept, numbers in ((forever, [1, 2]), (days, [])):
        controller = make_controller(kept, database, client)
        await Retain().reconcile(controller)
        assert await left(database, Event, job) == numbers
    await client.aclose()
    assert await left(database, Metric, job) == [1, 2]


async def test_a_projects_own_days_go_before_the_settings(database: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"keep_events_days": 50.0, "keep_checkpoints_days": 200.0})
    own = {"ada": None, "bob": {"events_days": "forever"}, "eve": {"events_days": 200.0, "checkpoints_days": 7.0}}
    async with database.transaction() as session:
        for project_id in own:
            await projects.ensure(session, project_id)
            await projects.set_retention(session, project_id, Retention.model_validate(own[project_id] or {}))
    jobs = {project_id: await add_logs(database, 2, project_id=project_id) for project_id in (*own, "unlisted")}
    file_id = await add_file(database, settings, b"x", project_id="eve")
    async with database.transaction() as session:
        file = await session.get(File, file_id)
        assert file is not None
        file.created_at = LONG_AGO
        await projects.set_retention(session, "eve", Retention(uploads_days=30))
    runs_of = {project_id: add_run(settings, job) for project_id, job in jobs.items()}
    async with connect(settings) as client:
        await Retain().reconcile(make_controller(settings, database, client))
    numbers = {project_id: await left(database, Event, job) for project_id, job in jobs.items()}
    assert numbers == {"ada": [], "bob": [1, 2], "eve": [1, 2, 3], "unlisted": []}  # 3: that its files were removed
    assert {project_id for project_id, run in runs_of.items() if not run.exists()} == {"eve"}
    async with database.reading() as session:
        assert await session.get(File, file_id) is None

    async with database.transaction() as session:
        back = await projects.set_retention(session, "eve", Retention(events_days=None))
        assert back.retention == {"checkpoints_days": 7.0, "uploads_days": 30.0}
    async with connect(settings) as client:
        await Retain().reconcile(make_controller(settings, database, client))
    assert await left(database, Event, jobs["eve"]) == [3]
