import asyncio

import pytest
from sqlalchemy import select

from service.db.session import Database
from service.db.tables import Attempt, Event, Job, Metric
from service.errors import AttemptSuperseded, InvalidRequest, ReportGap
from service.jobs import attempts, reports
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import AttemptState, JobState
from service.jobs.transitions import transition
from service.settings import Settings
from service.spec import Stage
from service.spec.reports import (
    EventReport,
    Failure,
    Fault,
    MetricsReport,
    OutcomeReport,
    ProgressReport,
    Report,
    ReportAck,
    ReportBatch,
)
from tests.databases import statements
from tests.service.conftest import add_job

DONE = OutcomeReport(result="succeeded")
LOST = Failure(code="interrupted", message="The attempt was lost.", fault=Fault.SYSTEM)


def event(message: str = "something", **fields: object) -> EventReport:
    return EventReport.model_validate({"type": "data.prepared", "message": message} | fields)


def metrics(step: int, loss: float) -> MetricsReport:
    return MetricsReport(step=step, values={"loss": loss})


@pytest.fixture
async def attempt(database: Database) -> Attempt:
    async with database.transaction() as session:
        return await attempts.start_attempt(session, await add_job(session))


class Attempting:
    """Sends batches as an attempt does, each in its own transaction."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings

    async def send(self, attempt: Attempt, first_seq: int, *batch: Report) -> ReportAck:
        async with self.database.transaction() as session:
            whole = ReportBatch(first_seq=first_seq, reports=list(batch))
            return await reports.take_batch(session, attempt.id, whole, self.settings)

    async def job(self, attempt: Attempt) -> Job:
        async with self.database.reading() as session:
            return await JobRepository(session).get(attempt.job_id)

    async def messages(self, attempt: Attempt) -> list[tuple[int, str]]:
        """Of the events the attempt itself reported."""
        async with self.database.reading() as session:
            query = select(Event).where(Event.job_id == attempt.job_id, Event.attempt.is_not(None))
            return [(one.number, one.message) for one in await session.scalars(query.order_by(Event.number))]


@pytest.fixture
def api(database: Database, settings: Settings) -> Attempting:
    return Attempting(database, settings)


async def test_an_empty_batch_is_a_heartbeat_and_the_first_one_starts_the_job(
    api: Attempting, attempt: Attempt
) -> None:
    ack = await api.send(attempt, 1)

    assert (ack.last_seq, ack.cancel) == (0, False)
    assert (await api.job(attempt)).state is JobState.RUNNING
    async with api.database.reading() as session:
        seen = await AttemptRepository(session).get(attempt.id)
    assert seen.state is AttemptState.RUNNING
    assert seen.heartbeat_at is not None


async def test_no_event_is_older_than_the_one_before_it(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1, event())
    async with api.database.reading() as session:
        query = select(Event.type, Event.created_at).where(Event.job_id == attempt.job_id).order_by(Event.number)
        told = (await session.execute(query)).all()
    assert [one.type for one in told][-2:] == ["job.running", "data.prepared"]
    times = [one.created_at for one in told]
    assert times == sorted(times)


async def test_a_batch_sent_again_changes_nothing(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1, event("one"), event("two"))
    ack = await api.send(attempt, 1, event("one"), event("two"))

    assert ack.last_seq == 2
    assert [message for _, message in await api.messages(attempt)] == ["one", "two"]


async def test_of_a_batch_that_overlaps_only_the_new_part_is_taken(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1, event("one"), event("two"))
    ack = await api.send(attempt, 2, event("two"), event("three"))

    assert ack.last_seq == 3
    assert [message for _, message in await api.messages(attempt)] == ["one", "two", "three"]


async def test_two_copies_of_a_batch_at_once_are_taken_once(api: Attempting, attempt: Attempt) -> None:
    batch = [event(str(number)) for number in range(20)]
    await asyncio.gather(*(api.send(attempt, 1, *batch) for _ in range(4)))

    numbered = await api.messages(attempt)
    assert [message for _, message in numbered] == [str(number) for number in range(20)]
    assert [number for number, _ in numbered] == list(range(3, 23))  # after job.starting and job.running, no gap


async def test_a_gap_is_refused_and_the_answer_says_where_to_go_on(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1, event("one"))
    with pytest.raises(ReportGap) as refused:
        await api.send(attempt, 3, event("three"))

    assert refused.value.extra == {"expected_seq": 2}
    assert [message for _, message in await api.messages(attempt)] == ["one"]


async def test_a_batch_that_fails_half_way_leaves_nothing(api: Attempting, attempt: Attempt) -> None:
    with pytest.raises(InvalidRequest):
        await api.send(attempt, 1, event("one"), DONE, event("after the end"))

    assert await api.messages(attempt) == []
    assert (await api.job(attempt)).state is JobState.STARTING


async def test_a_superseded_attempt_is_refused(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1, event("one"))
    async with api.database.transaction() as session:
        old = await AttemptRepository(session).get(attempt.id)
        await attempts.fail_attempt(session, old, LOST, api.settings)
        second = await attempts.start_attempt(session, await JobRepository(session).get(attempt.job_id))

    for first_seq, batch in [(2, [event("a ghost")]), (2, []), (2, [DONE])]:
        with pytest.raises(AttemptSuperseded):
            await api.send(attempt, first_seq, *batch)
    await api.send(second, 1, event("mine"))
    assert [message for _, message in await api.messages(attempt)] == ["one", "mine"]


async def test_the_last_batch_sent_again_after_a_lost_answer_is_acknowledged(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1, event("one"), DONE)
    ack = await api.send(attempt, 1, event("one"), DONE)

    assert ack.last_seq == 2
    assert (await api.job(attempt)).state is JobState.SUCCEEDED
    assert (await api.send(attempt, 3)).last_seq == 2  # the heartbeat that crossed with it
    with pytest.raises(AttemptSuperseded):
        await api.send(attempt, 3, event("after the end"))


async def test_a_cancelling_job_tells_its_attempt_and_waits_for_the_cluster(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1)
    async with api.database.transaction() as session:
        job = await JobRepository(session).get(attempt.job_id)
        await transition(session, job, JobState.CANCELLING, reason="asked to")

    assert (await api.send(attempt, 1, event("one"))).cancel
    await api.send(attempt, 2, OutcomeReport(result="cancelled"))
    assert (await api.job(attempt)).state is JobState.CANCELLING


async def test_an_attempt_that_publishes_before_it_hears_of_the_cancel_has_succeeded(
    api: Attempting, attempt: Attempt
) -> None:
    await api.send(attempt, 1)
    async with api.database.transaction() as session:
        job = await JobRepository(session).get(attempt.job_id)
        await transition(session, job, JobState.CANCELLING, reason="asked to")
    await api.send(attempt, 1, DONE)

    assert (await api.job(attempt)).state is JobState.SUCCEEDED


async def test_an_attempt_that_was_stopped_uncalled_for_is_retried(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1, OutcomeReport(result="cancelled"))

    assert (await api.job(attempt)).state is JobState.QUEUED


async def test_a_failure_reaches_the_job_with_stage_and_log_tail(api: Attempting, attempt: Attempt) -> None:
    failure = Failure(
        code="tokenizer_missing",
        message="There is no tokenizer.",
        fault=Fault.USER,
        stage=Stage.PREPARE,
        log_tail=["a\0b"],
    )
    await api.send(attempt, 1, OutcomeReport(result="failed", failure=failure))

    job = await api.job(attempt)
    assert job.state is JobState.FAILED
    assert job.error == failure.model_dump(mode="json") | {"log_tail": ["a\N{REPLACEMENT CHARACTER}b"]}


async def test_metrics_are_numbered_and_what_is_no_number_is_stored_as_null(api: Attempting, attempt: Attempt) -> None:
    await api.send(attempt, 1, metrics(0, 0.7), event(), metrics(1, float("nan")))
    await api.send(attempt, 4, metrics(2, 0.5))

    async with api.database.reading() as session:
        stored = (await session.scalars(select(Metric).order_by(Metric.number))).all()
    assert [(one.number, one.step, one.values["loss"]) for one in stored] == [(1, 0, 0.7), (2, 1, None), (3, 2, 0.5)]


async def test_a_step_is_taken_in_five_statements_however_many_reports_tell_it(
    api: Attempting, attempt: Attempt
) -> None:
    await api.send(attempt, 1, event())
    counts = []
    for batch in ([metrics(0, 0.7)], [metrics(1, 0.6), metrics(2, 0.5)]):
        told = ProgressReport(stage=Stage.TRAIN, done=len(counts), total=9, unit="steps")
        with statements(api.database) as made:
            await api.send(attempt, 2 + 2 * len(counts), *batch, told)
        counts.append(len(made))
    assert counts == [5, 5]
    assert ((await api.job(attempt)).last_metric, (await api.job(attempt)).last_event) == (3, 3)


async def test_progress_replaces_itself_and_the_stage_never_goes_back(api: Attempting, attempt: Attempt) -> None:
    await api.send(
        attempt,
        1,
        ProgressReport(stage=Stage.REFERENCE, done=1, total=4, unit="pairs"),
        ProgressReport(stage=Stage.TRAIN, done=1, total=9, unit="steps"),
        ProgressReport(stage=Stage.REFERENCE, done=3, total=4, unit="pairs"),
    )

    job = await api.job(attempt)
    assert job.stage == "train"
    assert {stage: (entry["done"], entry["total"]) for stage, entry in job.progress.items()} == {
        "reference": (3, 4),
        "train": (1, 9),
    }


async def test_where_pools_are_yet_to_be_scaled_up_each_worker_has_a_gpu_that_did_not_say_how_many(
    api: Attempting, attempt: Attempt
) -> None:
    async with api.database.transaction() as session:
        job = await session.get_one(Job, attempt.job_id)
        job.spec = job.spec | {"resources": {"policy": {"workers": 2}, "reference": {"gpus_per_worker": 0.5}}}
    for device, gpus in ((None, None), ("cpu", None), ("gpu", 1.0)):
        settings = api.settings.model_copy(update={"serving_device": device})
        async with api.database.reading() as session:
            asked = (await reports.brief(session, attempt.id, settings)).spec.resources
        assert (asked.policy.workers, asked.policy.gpus_per_worker) == (2, gpus)
        assert asked.reference.gpus_per_worker == 0.5


async def test_the_brief_is_for_the_newest_attempt_only(api: Attempting, attempt: Attempt) -> None:
    async with api.database.reading() as session:
        told = await reports.brief(session, attempt.id, api.settings)
    assert (told.job_id, told.attempt_number) == (attempt.job_id, 1)
    assert told.train_file == f"files/{told.spec.data.train}"

    await api.send(attempt, 1, DONE)
    async with api.database.reading() as session:
        with pytest.raises(AttemptSuperseded):
            await reports.brief(session, attempt.id, api.settings)
