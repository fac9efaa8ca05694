import math
import sys

import pytest

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job, Metric
from service.jobs.curve import curve
from tests.service.conftest import add_job


async def job_with(database: Database, *values: tuple[int, dict[str, float | None]], split: str = "train") -> Job:
    async with database.transaction() as session:
        job = await add_job(session)
        session.add_all(
            Metric(job_id=job.id, number=number, attempt=1, split=split, step=step, values=told, created_at=utc_now())
            for number, (step, told) in enumerate(values, 1)
        )
    return job


async def test_a_short_curve_is_every_step_as_it_is(database: Database) -> None:
    job = await job_with(database, *((step, {"loss": step / 4}) for step in (1, 2, 3)))
    async with database.reading() as session:
        found = await curve(session, job.id, "train", 500)
        assert await curve(session, job.id, "held_out", 500) == []
    assert [(one.first_step, one.last_step, one.num_steps) for one in found] == [(1, 1, 1), (2, 2, 1), (3, 3, 1)]
    assert [one.mean for one in found] == [one.low for one in found] == [one.high for one in found]
    assert [one.mean["loss"] for one in found] == [0.25, 0.5, 0.75]


async def test_buckets_are_even_and_keep_a_spike_that_the_mean_hides(database: Database) -> None:
    values = [(step, {"loss": 1.0, "reward": float(step)}) for step in range(1, 1001)]
    values[637] = (638, {"loss": 90.0, "reward": -5.0})
    job = await job_with(database, *values)
    async with database.reading() as session:
        found = await curve(session, job.id, "train", 10)
    assert [(one.first_step, one.last_step, one.num_steps) for one in found] == [
        (100 * place + 1, 100 * place + 100, 100) for place in range(10)
    ]
    assert [one.high["loss"] for one in found] == [1.0] * 6 + [90.0] + [1.0] * 3
    assert found[6].mean["loss"] == pytest.approx(1.89)
    assert found[6].low["reward"] == -5.0
    assert found[0].mean["reward"] == pytest.approx(50.5)


async def test_a_repeated_step_counts_with_its_newest_values(database: Database) -> None:
    job = await job_with(database, (1, {"loss": 1.0}), (2, {"loss": 2.0}), (2, {"loss": 4.0}))
    async with database.reading() as session:
        [found] = await curve(session, job.id, "train", 1)
    assert (found.num_steps, found.mean["loss"], found.high["loss"]) == (2, 2.5, 4.0)


async def test_the_mean_of_values_whose_sum_is_beyond_a_float_is_between_them(database: Database) -> None:
    largest = sys.float_info.max
    job = await job_with(
        database,
        *((step, {"loss": largest, "reward": -1e308, "tiny": 0.1}) for step in range(1, 4)),
        (4, {"loss": largest / 2, "reward": 1e308, "tiny": 0.1}),
    )
    async with database.reading() as session:
        [found] = await curve(session, job.id, "train", 1)
    assert found.mean == pytest.approx({"loss": largest * 0.875, "reward": -0.5e308, "tiny": 0.1})
    async with database.reading() as session:
        first, _ = await curve(session, job.id, "train", 2)
    assert first.mean == {"loss": largest, "reward": -1e308, "tiny": 0.1}


async def test_a_value_that_was_not_finite_does_not_count(database: Database) -> None:
    job = await job_with(database, (1, {"loss": None, "grad_norm": None}), (2, {"loss": 3.0, "grad_norm": None}))
    async with database.reading() as session:
        [found] = await curve(session, job.id, "train", 1)
    assert (found.num_steps, found.mean, math.isfinite(found.mean["loss"])) == (2, {"loss": 3.0}, True)
