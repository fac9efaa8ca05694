import asyncio

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from service.db.session import Database
from service.db.tables import Attempt, Event
from service.errors import InvalidRequest, InvalidState, NotFound
from service.jobs.repository import AttemptRepository, JobRepository, append_event
from service.jobs.states import JobState
from service.jobs.transitions import transition
from tests.service.conftest import add_job


async def test_pages_hold_every_job_of_the_owner_once_newest_first(database: Database) -> None:
    async with database.transaction() as session:
        mine = [(await add_job(session)).id for _ in range(5)]
        await add_job(session, project_id="bob")

    seen: list[str] = []
    cursor = None
    async with database.reading() as session:
        while True:
            jobs, cursor = await JobRepository(session).page("ada", limit=2, cursor=cursor)
            seen += [job.id for job in jobs]
            if cursor is None:
                break
    assert seen == sorted(mine, reverse=True)


async def test_a_page_that_is_exactly_full_is_the_last_one(database: Database) -> None:
    async with database.transaction() as session:
        await add_job(session)
        await add_job(session)
        _, cursor = await JobRepository(session).page("ada", limit=2)
    assert cursor is None


@pytest.mark.parametrize("cursor", ["", "job-1", "' OR 1=1 --", "job-" + "0" * 21 + "\n", "\0"])
async def test_a_cursor_that_no_page_gave_out_is_refused(database: Database, cursor: str) -> None:
    async with database.reading() as session:
        with pytest.raises(InvalidRequest, match="next_cursor"):
            await JobRepository(session).page("ada", limit=2, cursor=cursor)


@pytest.mark.parametrize("states", [(), (JobState.FAILED, JobState.QUEUED)])
async def test_a_search_is_answered_by_an_index_alone(database: Database, states: tuple[JobState, ...]) -> None:
    """Rows are wide, and a word that no job has is looked for in all of them."""
    if not database.is_sqlite:
        pytest.skip("PostgreSQL chooses by how many rows there are")
    asked: list[tuple[str, tuple[object, ...]]] = []
    event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
    async with database.reading() as session:
        await JobRepository(session).page("ada", limit=20, search="nowhere at all", states=states)
        statement, values = asked[-1]
        plan = await (await session.connection()).exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        steps = [step.detail for step in plan]
    assert any("COVERING INDEX ix_jobs_searched" in step for step in steps), steps
    assert not any(step.startswith("SCAN") for step in steps), steps


async def test_another_owners_job_and_none_at_all_are_told_apart_by_nothing(database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session, project_id="bob")
        answers = []
        for job_id in (job.id, "job-" + "0" * 21, "../../etc/passwd", "\0"):
            with pytest.raises(NotFound) as refused:
                await JobRepository(session).get_in_project(job_id, "ada")
            answers.append(str(refused.value))
    assert len(set(answers)) == 1


async def test_events_appended_at_once_are_numbered_without_gap_or_double(database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session)

    async def append(number: int) -> None:
        async with database.transaction() as session:
            await append_event(session, await JobRepository(session).get(job.id), "data.prepared", str(number))

    await asyncio.gather(*(append(number) for number in range(20)))
    async with database.reading() as session:
        numbers = (await session.scalars(select(Event.number).order_by(Event.number))).all()
    assert list(numbers) == list(range(1, 21))


async def test_a_transaction_that_fails_gives_its_event_numbers_back(database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session)

    async def append_and_fail() -> None:
        async with database.transaction() as session:
            await append_event(session, job, "data.prepared", "never seen")
            await transition(session, job, JobState.SUCCEEDED, reason="too early")

    with pytest.raises(InvalidState):
        await append_and_fail()
    async with database.transaction() as session:
        assert await append_event(session, await JobRepository(session).get(job.id), "data.prepared", "seen") == 1


async def test_of_two_writers_that_read_the_same_state_one_moves_the_job(database: Database) -> None:
    async with database.transaction() as session:
        job_id = (await add_job(session)).id
    async with database.reading() as session:
        seen_by_controller = await JobRepository(session).get(job_id)
    async with database.reading() as session:
        seen_by_client = await JobRepository(session).get(job_id)

    async with database.transaction() as session:
        await transition(session, seen_by_client, JobState.CANCELLED, reason="asked to")
    with pytest.raises(InvalidState, match="no longer queued"):
        async with database.transaction() as session:
            await transition(session, seen_by_controller, JobState.STARTING, reason="its turn")

    async with database.reading() as session:
        job = await JobRepository(session).get(job_id)
        types = (await session.scalars(select(Event.type))).all()
    assert (job.state, list(types)) == (JobState.CANCELLED, ["job.cancelled"])
    assert job.finished_at is not None
    assert job.cancel_requested_at is not None


async def test_what_the_table_of_transitions_does_not_hold_is_refused(database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session)
        with pytest.raises(InvalidState):
            await transition(session, job, JobState.SUCCEEDED, reason="too early")


async def test_the_same_attempt_number_cannot_be_leased_twice(database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session)
        attempt = await AttemptRepository(session).create(job)
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            session.add(Attempt(id="other", job_id=job.id, number=1, state=attempt.state, created_at=job.created_at))


async def test_the_controllers_questions(database: Database) -> None:
    async with database.transaction() as session:
        queued = [await add_job(session) for _ in range(3)]
        await add_job(session, state=JobState.RUNNING)
        await add_job(session, state=JobState.CANCELLING)
        await add_job(session, state=JobState.SUCCEEDED)
        repository = JobRepository(session)
        assert [job.id for job in await repository.oldest_queued(2)] == sorted(job.id for job in queued)[:2]
        assert await repository.count_on_cluster() == 2
        assert {job.state for job in await repository.in_states(JobState.RUNNING, JobState.SUCCEEDED)} == {
            JobState.RUNNING,
            JobState.SUCCEEDED,
        }


async def test_the_database_is_set_up_for_several_processes(database: Database) -> None:
    async with database.transaction() as session:
        if database.is_sqlite:
            assert (await session.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
            assert (await session.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1
        else:
            idle = await session.execute(text("SHOW idle_in_transaction_session_timeout"))
            assert idle.scalar_one() == "10s"


async def test_who_only_reads_cannot_write_on_postgresql(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no transactions that may not write")
    with pytest.raises(DBAPIError, match="read-only"):
        async with database.reading() as session:
            await add_job(session)


async def test_a_reader_is_not_kept_waiting_by_a_writer(database: Database) -> None:
    async with database.transaction() as writing:
        await add_job(writing)
        async with database.reading() as session:
            assert await JobRepository(session).page("ada", limit=10) == ([], None)
