import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job, Metric
from service.errors import DatasetInvalid, IdempotencyConflict, InvalidRequest, NotFound
from service.jobs import admission, attempts, lifecycle, reports
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import Storage
from service.spec.reports import EventReport, OutcomeReport, Report, ReportBatch
from service.sweeps import service as sweeps
from service.sweeps.members import MAX_MEMBERS, SweepRequest, expand
from tests.service.conftest import add_file, add_job, make_model

SCORED = EventReport(type="reference.scored", message="1 pairs scored", stage="reference")
BASE = {"model": "/m", "data": {"train": "file-" + "0" * 21}}


def changes_of(**request: Any) -> list[tuple[dict[str, Any], list[dict[str, Any]], float | None]]:
    found = expand(SweepRequest.model_validate({"base": BASE} | request))
    return [(changes, spec.model_dump()["losses"], spec.training.learning_rate) for changes, spec in found]


def test_a_grid_has_a_job_for_each_combination() -> None:
    found = changes_of(grid={"losses.0.beta": [0.1, 0.3], "training.learning_rate": [1e-6, 5e-6]})
    assert [(losses[0]["beta"], rate) for _, losses, rate in found] == [
        (0.1, 1e-6),
        (0.1, 5e-6),
        (0.3, 1e-6),
        (0.3, 5e-6),
    ]
    assert found[1][0] == {"losses.0.beta": 0.1, "training.learning_rate": 5e-6}


def test_changes_are_merge_patches() -> None:
    found = changes_of(changes=[{"losses": [{"type": "ipo"}]}, {"training": {"learning_rate": 1e-5}}])
    assert [(losses[0]["type"], rate) for _, losses, rate in found] == [("ipo", None), ("sigmoid", 1e-5)]


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"grid": {"losses.1.beta": [0.1]}}, "losses.1.beta"),
        ({"grid": {"losses.0.beta.deep": [0.1]}}, "losses.0.beta.deep"),
        ({"grid": {"losses.0.gamma": [0.1]}}, "losses.0.gamma"),
        ({"grid": {"losses.0.beta": [0.1, -1]}}, "losses.0.beta"),
        ({"grid": {"losses.0.beta": [0.1, 0.1]}}, "Jobs 0 and 1 of the sweep are the same"),
        ({"grid": {"training.seed": list(range(13)), "training.epochs": [1, 2, 3, 4, 5]}}, "65 combinations"),
        ({"changes": [{"model": None}]}, "model"),
    ],
)
def test_what_makes_no_sweep_is_refused_by_name(request_: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        changes_of(**request_)


@pytest.mark.parametrize(
    "request_",
    [{}, {"grid": {}}, {"changes": []}, {"changes": [{}] * (MAX_MEMBERS + 1)}, {"grid": {"a": [1]}, "changes": [{}]}],
)
def test_a_request_has_a_grid_or_changes(request_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"grid|changes"):
        changes_of(**request_)


class Client:
    """Makes sweeps as `ada`, and plays the attempts of their jobs."""

    def __init__(self, database: Database, settings: Settings, base: dict[str, Any]) -> None:
        self.database, self.settings, self.base = database, settings, base

    async def create(self, key: str | None = None, **request: Any) -> tuple[str, list[Job]]:
        asked = SweepRequest.model_validate({"base": self.base} | request)
        sweep, _ = await sweeps.create(self.database, self.settings, "ada", asked, key)
        async with self.database.reading() as session:
            return sweep.id, [one.job for one in await sweeps.members_of(session, sweep)]

    async def can_start(self) -> list[str]:
        async with self.database.reading() as session:
            return [job.id for job in await JobRepository(session).oldest_queued(100)]

    async def run(self, job: Job, *said: Report) -> None:
        async with self.database.transaction() as session:
            fresh = await JobRepository(session).get(job.id)
            attempt = await attempts.start_attempt(session, fresh)
            batch = ReportBatch(first_seq=1, reports=list(said))
            await reports.take_batch(session, attempt.id, batch, self.settings)


@pytest.fixture
async def client(database: Database, settings: Settings) -> Client:
    model: Path = make_model(settings.storage_root / "models" / "tiny")
    file_id = await add_file(database, settings, b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n')
    return Client(database, settings, {"model": str(model), "data": {"train": file_id}, "serve": False})


async def test_all_jobs_of_a_sweep_are_queued_or_none(client: Client, database: Database) -> None:
    _, jobs = await client.create(grid={"losses.0.beta": [0.1, 0.2, 0.3]})
    assert [(job.state, job.spec["losses"][0]["beta"]) for job in jobs] == [
        (JobState.QUEUED, beta) for beta in (0.1, 0.2, 0.3)
    ]
    with pytest.raises(DatasetInvalid, match="Job 1 of the sweep") as refused:
        await client.create(changes=[{}, {"data": {"train": "file-" + "0" * 21}}])
    assert refused.value.extra["job"] == 1
    async with database.reading() as session:
        assert len((await JobRepository(session).page("ada", limit=100))[0]) == 3


async def test_two_sweeps_over_the_same_models_in_opposite_order_do_not_wait_in_a_ring(
    client: Client, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.transaction() as session:
        jobs = [await add_job(session, state=JobState.SUCCEEDED) for _ in range(2)]
    for job in jobs:
        make_model(Storage(settings.storage_root).model(job.id))
    add = JobRepository.add

    async def add_slowly(self: JobRepository, **columns: Any) -> Job:
        job = await add(self, **columns)
        await asyncio.sleep(0.1)  # the other sweep gets to its first job, if nothing keeps it
        return job

    monkeypatch.setattr(JobRepository, "add", add_slowly)
    changes = [{"model": f"job:{job.id}"} for job in jobs]
    made = await asyncio.gather(client.create(changes=changes), client.create(changes=changes[::-1]))
    assert [len(members) for _, members in made] == [2, 2]


async def test_a_repeated_key_makes_one_sweep(client: Client) -> None:
    grid = {"losses.0.beta": [0.1, 0.2]}
    first, jobs = await client.create("once", grid=grid)
    again, same = await client.create("once", grid=grid)
    assert (first, [job.id for job in jobs]) == (again, [job.id for job in same])
    with pytest.raises(IdempotencyConflict):
        await client.create("once", grid={"losses.0.beta": [0.1]})


async def test_the_rows_that_jobs_share_are_read_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    check_rows = admission.check_rows

    def counted(path: Path, filename: str, *args: Any) -> Any:
        read.append(filename)
        return check_rows(path, filename, *args)

    monkeypatch.setattr(admission, "check_rows", counted)
    await client.create(grid={"losses.0.beta": [0.1, 0.2, 0.3]})
    assert len(read) == 1


async def test_jobs_that_share_a_reference_pass_wait_until_one_has_scored(client: Client) -> None:
    changes = [
        {},
        {"losses": [{"type": "ipo"}]},
        {"losses": [{"type": "simpo"}]},
        {"training": {"precision": "float32"}},
    ]
    _, (first, shares, without, other) = await client.create(changes=changes)
    assert sorted(await client.can_start()) == sorted([first.id, without.id, other.id])
    await client.run(first)
    assert shares.id not in await client.can_start()
    await client.run(other, SCORED)  # of other numbers
    assert shares.id not in await client.can_start()


async def test_the_scores_of_one_let_the_others_go(client: Client) -> None:
    _, (first, second, third) = await client.create(grid={"losses.0.beta": [0.1, 0.2, 0.3]})
    assert await client.can_start() == [first.id]
    await client.run(first, SCORED)
    assert sorted(await client.can_start()) == sorted([second.id, third.id])


async def test_when_the_first_stops_without_scores_the_next_goes_first(client: Client, database: Database) -> None:
    _, (first, second, third) = await client.create(grid={"losses.0.beta": [0.1, 0.2, 0.3]})
    await lifecycle.pause(database, "ada", first.id)
    assert await client.can_start() == [second.id]
    await client.run(second, OutcomeReport(result="succeeded"))
    assert await client.can_start() == [third.id]


async def test_a_sweep_is_cancelled_as_a_whole(client: Client, database: Database) -> None:
    sweep_id, (first, *_) = await client.create(grid={"losses.0.beta": [0.1, 0.2, 0.3]})
    await client.run(first, OutcomeReport(result="succeeded"))
    for _ in range(2):
        sweep = await sweeps.cancel(database, "ada", sweep_id)
    async with database.reading() as session:
        states = [one.job.state for one in await sweeps.members_of(session, sweep)]
    assert states == [JobState.SUCCEEDED, JobState.CANCELLED, JobState.CANCELLED]
    with pytest.raises(NotFound):
        await sweeps.cancel(database, "bob", sweep_id)


async def test_members_have_what_was_measured_last(client: Client, database: Database) -> None:
    sweep_id, (first, second) = await client.create(grid={"losses.0.beta": [0.1, 0.2]})
    async with database.transaction() as session:
        for number, (split, step, loss) in enumerate([("train", 1, 0.9), ("held_out", 2, 0.8), ("train", 2, 0.7)], 1):
            row = {"job_id": first.id, "number": number, "attempt": 1, "created_at": utc_now()}
            session.add(Metric(**row, split=split, step=step, values={"loss": loss}))
    async with database.reading() as session:
        members = await sweeps.members_of(session, await sweeps.get(session, "ada", sweep_id))
    assert [(one.job.id, one.changes, one.metrics) for one in members] == [
        (first.id, {"losses.0.beta": 0.1}, {"train": {"loss": 0.7}, "held_out": {"loss": 0.8}}),
        (second.id, {"losses.0.beta": 0.2}, {}),
    ]
