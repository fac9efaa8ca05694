"""Pause, resume, retry and budgets: what they do to a job, and what they may not."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select

from service.clock import utc_now
from service.controller import budget
from service.controller.context import make_controller
from service.db.session import Database
from service.db.tables import Attempt, Event, Job
from service.errors import BudgetSpent, DatasetInvalid, InvalidRequest, InvalidState, NotFound
from service.files import service as files
from service.jobs import attempts, lifecycle, reports
from service.jobs.gpu_hours import gpu_hours
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.service import cancel, submit
from service.jobs.states import AttemptState, JobState
from service.settings import Settings
from service.spec import AlignmentJob
from service.spec.reports import EventReport, Failure, Fault, OutcomeReport, Report, ReportAck, ReportBatch
from tests.service.conftest import add_file, add_job, make_model

LOST = Failure(code="interrupted", message="The attempt was lost.", fault=Fault.SYSTEM)
BAD_ROWS = Failure(code="dataset_invalid", message="Row 3 has no answer.", fault=Fault.USER)
SAVED = EventReport(type="checkpoint.saved", message="Checkpoint after step 50")


async def queued(database: Database, **columns: object) -> Job:
    async with database.transaction() as session:
        return await add_job(session, **columns)


async def start(database: Database, job: Job) -> Attempt:
    """The job's next attempt, which has spoken."""
    async with database.transaction() as session:
        fresh = await JobRepository(session).get(job.id)
        attempt = await attempts.start_attempt(session, fresh)
        await attempts.note_first_word(session, fresh, attempt)
        return attempt


async def say(database: Database, settings: Settings, attempt: Attempt, *said: Report, seq: int = 1) -> ReportAck:
    async with database.transaction() as session:
        batch = ReportBatch(first_seq=seq, reports=list(said))
        return await reports.take_batch(session, attempt.id, batch, settings)


async def cluster_is_clean(database: Database, job: Job) -> None:
    async with database.transaction() as session:
        await attempts.finish_leaving(session, await JobRepository(session).get(job.id), "Nothing is left.")


async def now(database: Database, job: Job) -> Job:
    async with database.reading() as session:
        return await JobRepository(session).get(job.id)


async def events_of(database: Database, job: Job) -> list[str]:
    async with database.reading() as session:
        rows = (await session.scalars(select(Event).where(Event.job_id == job.id).order_by(Event.number))).all()
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    return [row.type for row in rows]


async def test_a_queued_job_is_held_at_once_and_comes_back_to_its_place(database: Database) -> None:
    first, second = await queued(database), await queued(database)
    assert (await lifecycle.pause(database, "ada", first.id)).state is JobState.PAUSED
    async with database.reading() as session:
        assert [job.id for job in await JobRepository(session).oldest_queued(2)] == [second.id]

    assert (await lifecycle.resume(database, "ada", first.id)).state is JobState.QUEUED
    async with database.reading() as session:
        assert [job.id for job in await JobRepository(session).oldest_queued(2)] == [first.id, second.id]
    assert await events_of(database, first) == ["job.paused", "job.queued"]


async def test_a_running_job_hears_of_the_pause_and_is_paused_when_the_cluster_is_clean(
    database: Database, settings: Settings
) -> None:
    job = await queued(database)
    attempt = await start(database, job)
    assert not (await say(database, settings, attempt)).pause
    assert (await lifecycle.pause(database, "ada", job.id)).state is JobState.PAUSING
    assert (await say(database, settings, attempt)).pause

    await say(database, settings, attempt, SAVED, OutcomeReport(result="paused"))
    assert (await now(database, job)).state is JobState.PAUSING  # its actors may still be there
    await cluster_is_clean(database, job)
    paused = await now(database, job)
    async with database.reading() as session:
        left = await AttemptRepository(session).get(attempt.id)
    assert (paused.state, paused.num_failures, left.state) == (JobState.PAUSED, 0, AttemptState.PAUSED)
    assert paused.finished_at is None
    assert await events_of(database, job) == [
        "job.starting",
        "job.running",
        "job.pausing",
        "checkpoint.saved",
        "job.paused",
    ]


async def test_asking_again_changes_nothing(database: Database) -> None:
    job = await queued(database)
    await start(database, job)
    for _ in range(2):
        assert (await lifecycle.pause(database, "ada", job.id)).state is JobState.PAUSING
    await cluster_is_clean(database, job)
    assert (await lifecycle.pause(database, "ada", job.id)).state is JobState.PAUSED
    for _ in range(2):
        assert (await lifecycle.resume(database, "ada", job.id)).state is JobState.QUEUED
    assert (await events_of(database, job)).count("job.queued") == 1


async def test_pauses_cost_none_of_the_attempts(database: Database, settings: Settings) -> None:
    job = await queued(database)
    for _ in range(settings.max_attempts + 2):
        attempt = await start(database, job)
        await lifecycle.pause(database, "ada", job.id)
        await say(database, settings, attempt, OutcomeReport(result="paused"))
        await cluster_is_clean(database, job)
        await lifecycle.resume(database, "ada", job.id)
    attempt = await start(database, job)
    await say(database, settings, attempt, OutcomeReport(result="failed", failure=LOST))
    assert (await now(database, job)).state is JobState.QUEUED


async def test_an_attempt_that_is_lost_while_it_pauses_is_paused_all_the_same(
    database: Database, settings: Settings
) -> None:
    job = await queued(database)
    attempt = await start(database, job)
    await lifecycle.pause(database, "ada", job.id)
    await say(database, settings, attempt, OutcomeReport(result="failed", failure=LOST))
    assert (await now(database, job)).state is JobState.PAUSING
    await cluster_is_clean(database, job)
    assert (await now(database, job)).state is JobState.PAUSED


@pytest.mark.parametrize(
    ("last_word", "state"),
    [
        (OutcomeReport(result="succeeded"), JobState.SUCCEEDED),
        (OutcomeReport(result="failed", failure=BAD_ROWS), JobState.FAILED),
    ],
)
async def test_an_attempt_that_ends_before_it_hears_has_ended(
    database: Database, settings: Settings, last_word: OutcomeReport, state: JobState
) -> None:
    job = await queued(database)
    attempt = await start(database, job)
    await lifecycle.pause(database, "ada", job.id)
    await say(database, settings, attempt, last_word)
    assert (await now(database, job)).state is state
    with pytest.raises(InvalidState):
        await cluster_is_clean(database, job)


async def test_a_pause_that_nobody_asked_for_is_a_failure_of_ours(database: Database, settings: Settings) -> None:
    job = await queued(database)
    attempt = await start(database, job)
    await say(database, settings, attempt, OutcomeReport(result="paused"))
    assert ((await now(database, job)).state, (await now(database, job)).num_failures) == (JobState.QUEUED, 1)


async def test_cancel_works_on_paused_and_pausing_jobs(database: Database, settings: Settings) -> None:
    held = await queued(database)
    await lifecycle.pause(database, "ada", held.id)
    assert (await cancel(database, "ada", held.id)).state is JobState.CANCELLED

    job = await queued(database)
    attempt = await start(database, job)
    await lifecycle.pause(database, "ada", job.id)
    assert (await cancel(database, "ada", job.id)).state is JobState.CANCELLING
    await say(database, settings, attempt, OutcomeReport(result="paused"))  # it had heard of the pause first
    await cluster_is_clean(database, job)
    async with database.reading() as session:
        assert (await AttemptRepository(session).get(attempt.id)).state is AttemptState.CANCELLED
    assert (await now(database, job)).state is JobState.CANCELLED


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.CANCELLING])
async def test_what_has_ended_is_neither_paused_nor_resumed(database: Database, state: JobState) -> None:
    job = await queued(database, state=state)
    for ask in (lifecycle.pause, lifecycle.resume):
        with pytest.raises(InvalidState, match=state):
            await ask(database, "ada", job.id)
        with pytest.raises(NotFound):
            await ask(database, "bob", job.id)


async def test_each_failure_of_ours_in_a_row_waits_twice_as_long(database: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"max_attempts": 5, "retry_backoff_s": 10, "retry_backoff_max_s": 35})
    job = await queued(database)
    for wait_s in (10, 20, 35, 35):
        attempt = await start(database, job)
        before = utc_now()
        await say(database, settings, attempt, OutcomeReport(result="failed", failure=LOST))
        not_before = (await now(database, job)).not_before
        assert not_before is not None
        assert before <= not_before - timedelta(seconds=wait_s) <= utc_now()
        async with database.reading() as session:
            assert list(await JobRepository(session).oldest_queued(1)) == []

    attempt = await start(database, job)
    await say(database, settings, attempt, OutcomeReport(result="failed", failure=LOST))
    failed = await now(database, job)
    assert (failed.state, failed.not_before) == (JobState.FAILED, None)


async def test_an_attempt_that_got_on_begins_a_new_row_of_failures(database: Database, settings: Settings) -> None:
    job = await queued(database)
    for _ in range(settings.max_attempts + 2):
        attempt = await start(database, job)
        await say(database, settings, attempt, SAVED, OutcomeReport(result="failed", failure=LOST))
        assert ((await now(database, job)).state, (await now(database, job)).num_failures) == (JobState.QUEUED, 1)


async def test_a_failed_job_is_retried_under_its_own_id(database: Database, settings: Settings) -> None:
    job = await queued(database, spec=await spec_of_a_file(database, settings))
    attempt = await start(database, job)
    await say(database, settings, attempt, OutcomeReport(result="failed", failure=BAD_ROWS))
    again = await lifecycle.retry(database, "ada", job.id)
    assert (again.state, again.error, again.finished_at, again.num_failures) == (JobState.QUEUED, None, None, 0)
    assert (await lifecycle.retry(database, "ada", job.id)).last_event == again.last_event
    assert (await start(database, job)).number == 2
    with pytest.raises(NotFound):
        await lifecycle.retry(database, "bob", job.id)


async def test_a_job_whose_file_was_deleted_since_is_not_retried(database: Database, settings: Settings) -> None:
    spec = await spec_of_a_file(database, settings)
    job = await queued(database, spec=spec, state=JobState.CANCELLED)
    await files.delete(database, settings, "ada", spec["data"]["train"])  # type: ignore[index]
    with pytest.raises(DatasetInvalid, match="no file"):
        await lifecycle.retry(database, "ada", job.id)
    assert (await now(database, job)).state is JobState.CANCELLED


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.PAUSED, JobState.PAUSING, JobState.CANCELLING])
async def test_only_what_failed_or_was_cancelled_is_retried(database: Database, state: JobState) -> None:
    job = await queued(database, state=state)
    with pytest.raises(InvalidState):
        await lifecycle.retry(database, "ada", job.id)


async def test_a_spent_budget_is_raised_before_the_job_goes_on(database: Database) -> None:
    job = await queued(database, spec=with_budget(1.0), state=JobState.PAUSED, gpu_seconds=3600.0)
    with pytest.raises(BudgetSpent) as refused:
        await lifecycle.resume(database, "ada", job.id)
    assert (refused.value.extra["gpu_hours"], refused.value.extra["max_gpu_hours"]) == (1.0, 1.0)
    with pytest.raises(BudgetSpent):
        await lifecycle.resume(database, "ada", job.id, 0.5)
    assert (await now(database, job)).spec["resources"]["max_gpu_hours"] == 1.0  # nothing of that was kept

    resumed = await lifecycle.resume(database, "ada", job.id, 2.0)
    assert (resumed.state, resumed.spec["resources"]["max_gpu_hours"]) == (JobState.QUEUED, 2.0)
    await lifecycle.resume(database, "ada", job.id, 2.0)
    assert await events_of(database, job) == ["budget.changed", "job.queued"]


async def test_the_gpu_hours_of_all_attempts_add_up(database: Database, settings: Settings) -> None:
    job = await queued(database, gpus=3.0)
    for number in (1, 2):
        attempt = await start(database, job)
        async with database.transaction() as session:
            row = await AttemptRepository(session).get(attempt.id)
            row.created_at -= timedelta(hours=2)
        async with database.reading() as session:
            live = await AttemptRepository(session).current(job)
        assert gpu_hours(await now(database, job), live, utc_now()) == pytest.approx(6 * number, abs=0.01)
        await say(database, settings, attempt, SAVED, OutcomeReport(result="failed", failure=LOST))
    assert gpu_hours(await now(database, job), None, utc_now()) == pytest.approx(12, abs=0.01)


@pytest.mark.parametrize(("hours", "state"), [(1.9, JobState.RUNNING), (2.0, JobState.PAUSING)])
async def test_a_job_that_has_spent_its_budget_is_paused(
    database: Database, settings: Settings, hours: float, state: JobState
) -> None:
    job = await queued(database, spec=with_budget(2.0), gpus=1.0)
    attempt = await start(database, job)
    async with database.transaction() as session:
        (await AttemptRepository(session).get(attempt.id)).created_at -= timedelta(hours=hours)
    async with httpx.AsyncClient() as unused:
        controller = make_controller(settings, database, unused)
        for _ in range(2):
            await budget.reconcile(controller)
    assert (await now(database, job)).state is state
    told = (await events_of(database, job))[2:]
    assert told == (["budget.reached", "job.pausing"] if state is JobState.PAUSING else [])


async def test_a_budget_that_could_never_be_spent_is_refused(database: Database, settings: Settings) -> None:
    model = make_model(settings.storage_root / "models" / "tiny")
    file_id = await add_file(database, settings, b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n')
    no_gpus = {"gpus_per_worker": 0}
    resources = {"policy": no_gpus, "reference": no_gpus, "max_gpu_hours": 1}
    body = {"model": str(model), "data": {"train": file_id}, "serve": False, "resources": resources}
    with pytest.raises(InvalidRequest, match="leave max_gpu_hours out"):
        await submit(database, settings, "ada", AlignmentJob.model_validate(body))


def with_budget(max_gpu_hours: float) -> dict[str, object]:
    spec = {
        "model": "/m",
        "data": {"train": "file-" + "0" * 21},
        "resources": {"max_gpu_hours": max_gpu_hours},
        "serve": False,
    }
    return AlignmentJob.model_validate(spec).model_dump(mode="json")


async def spec_of_a_file(database: Database, settings: Settings) -> dict[str, object]:
    file_id = await add_file(database, settings, b"{}\n")
    spec = {"model": "/m", "data": {"train": file_id}, "serve": False}
    return AlignmentJob.model_validate(spec).model_dump(mode="json")
