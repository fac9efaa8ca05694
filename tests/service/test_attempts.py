import pytest
from sqlalchemy import select

from service.db.session import Database
from service.db.tables import Attempt, Event, Job
from service.deployments import service as deployments
from service.errors import InvalidState
from service.jobs import attempts
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import AttemptState, DeploymentState, JobState
from service.jobs.transitions import transition
from service.settings import Settings
from service.spec.reports import NODE_DRAINED, Failure, Fault
from tests.service.conftest import add_job

LOST = Failure(code="interrupted", message="The attempt was lost.", fault=Fault.SYSTEM)
BAD_ROWS = Failure(code="dataset_invalid", message="Row 3 has no answer.", fault=Fault.USER)


async def running_job(database: Database, **columns: object) -> tuple[Job, Attempt]:
    async with database.transaction() as session:
        job = await add_job(session, **columns)
        attempt = await attempts.start_attempt(session, job)
        await attempts.note_first_word(session, job, attempt)
    return job, attempt


async def events_of(database: Database, job: Job) -> list[tuple[int, str]]:
    async with database.reading() as session:
        rows = await session.scalars(select(Event).where(Event.job_id == job.id).order_by(Event.number))
        return [(event.number, event.type) for event in rows]


async def test_the_first_word_of_an_attempt_makes_its_job_run(database: Database) -> None:
    job, attempt = await running_job(database)

    assert (job.state, attempt.state, attempt.id) == (JobState.RUNNING, AttemptState.RUNNING, f"{job.id}-1")
    assert job.started_at is not None
    assert await events_of(database, job) == [(1, "job.starting"), (2, "job.running")]


async def test_a_failure_of_ours_is_retried_until_the_limit_and_then_final(
    database: Database, settings: Settings
) -> None:
    job, attempt = await running_job(database)
    async with database.transaction() as session:
        await attempts.fail_attempt(session, attempt, LOST, settings)
        job = await JobRepository(session).get(job.id)
        assert (job.state, job.error) == (JobState.QUEUED, None)
        second = await attempts.start_attempt(session, job)
        await attempts.note_first_word(session, job, second)
        await attempts.fail_attempt(session, second, LOST, settings)

    async with database.reading() as session:
        job = await JobRepository(session).get(job.id)
    assert (job.state, job.num_attempts) == (JobState.FAILED, 2)
    assert job.error is not None
    assert job.error["code"] == "interrupted"
    assert job.finished_at is not None


async def test_leaving_nodes_that_are_drained_costs_no_attempt_however_often(
    database: Database, settings: Settings
) -> None:
    drained = Failure(code=NODE_DRAINED, message="The node is being drained.", fault=Fault.SYSTEM)
    job, attempt = await running_job(database)
    for number in range(1, settings.max_attempts + 2):
        async with database.transaction() as session:
            await attempts.fail_attempt(session, attempt, drained, settings)
            job = await JobRepository(session).get(job.id)
            assert (job.state, job.num_failures, job.not_before) == (JobState.QUEUED, 0, None)
            attempt = await attempts.start_attempt(session, job)
        assert attempt.number == number + 1


async def test_a_failure_that_only_the_user_can_fix_is_final_at_once(database: Database, settings: Settings) -> None:
    job, attempt = await running_job(database)
    async with database.transaction() as session:
        await attempts.fail_attempt(session, attempt, BAD_ROWS, settings)
        job = await JobRepository(session).get(job.id)

    assert (job.state, job.num_attempts) == (JobState.FAILED, 1)
    assert job.error is not None
    assert job.error["message"] == "Row 3 has no answer."


async def test_an_attempt_ends_once(database: Database, settings: Settings) -> None:
    _, attempt = await running_job(database)
    async with database.transaction() as session:
        await attempts.succeed_attempt(session, attempt)
    async with database.transaction() as session:
        with pytest.raises(InvalidState, match="already ended"):
            await attempts.fail_attempt(session, attempt, LOST, settings)


async def test_a_failure_while_cancelling_ends_the_attempt_and_not_the_job(
    database: Database, settings: Settings
) -> None:
    job, attempt = await running_job(database)
    async with database.transaction() as session:
        await transition(session, job, JobState.CANCELLING, reason="asked to")
        await attempts.fail_attempt(session, attempt, LOST, settings)
        job = await JobRepository(session).get(job.id)
        assert (job.state, attempt.state) == (JobState.CANCELLING, AttemptState.FAILED)

        await attempts.finish_leaving(session, job, "Nothing is left on the cluster.")
    assert job.state is JobState.CANCELLED


async def test_cancelling_ends_an_attempt_that_never_spoke(database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session)
        attempt = await attempts.start_attempt(session, job)
        await transition(session, job, JobState.CANCELLING, reason="asked to")
        await attempts.finish_leaving(session, job, "Nothing is left on the cluster.")
        assert (await AttemptRepository(session).get(attempt.id)).state is AttemptState.CANCELLED
        assert list(await AttemptRepository(session).active()) == []


@pytest.mark.parametrize("serve", [True, False])
async def test_success_deploys_what_asked_to_be_served(database: Database, serve: bool) -> None:
    job, attempt = await running_job(database, serve=serve)
    async with database.transaction() as session:
        await attempts.succeed_attempt(session, attempt)

    async with database.reading() as session:
        job = await JobRepository(session).get(job.id)
        wanted = await deployments.all_wanted(session)
    assert job.state is JobState.SUCCEEDED
    assert [(one.job_id, one.state) for one in wanted] == [(job.id, DeploymentState.DEPLOYING)] * serve
