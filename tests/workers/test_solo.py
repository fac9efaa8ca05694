"""A training worker that is its own mailbox, without Ray around it."""

import asyncio
import json
from pathlib import Path

import pytest

from service.spec.reports import EventReport, MetricsReport, Report
from tests.workers.training_runs import STEPS, make_job, make_run, metrics_of, trained
from workers.cluster import without_variables
from workers.engine.config import RunConfig
from workers.errors import AttemptError, Paused
from workers.mailbox import Mailbox
from workers.reference.handover import PassState, write_state
from workers.solo import SoloTrainer


def event(message: str) -> EventReport:
    return EventReport(type="a.b", message=message)


async def run(trainer: SoloTrainer, config: RunConfig) -> tuple[AttemptError | Paused | None, list[Report]]:
    """What training returns, and every report, taken while it goes on and after it."""
    reports: list[Report] = []
    training = asyncio.create_task(trainer.train(config))
    while True:
        done = training.done()
        taken = await trainer.take(len(reports), 0 if done else 0.05)
        reports += taken
        if done and not taken:
            return training.result(), reports


def test_it_trains_as_any_worker_and_every_report_is_there_to_be_taken(model_path: Path, tmp_path: Path) -> None:
    whole = trained(make_run(tmp_path / "plain", model_path, make_job()))
    config = make_run(tmp_path / "solo", model_path, make_job())
    result, reports = asyncio.run(run(SoloTrainer(), config))
    assert result is None
    assert metrics_of(reports) == whole
    assert [one.step for one in reports if isinstance(one, MetricsReport) and one.split == "train"] == [
        *range(1, STEPS + 1)
    ]
    assert (config.export / "config.json").exists()


def test_a_pause_is_returned(model_path: Path, tmp_path: Path) -> None:
    async def paused() -> AttemptError | Paused | None:
        trainer = SoloTrainer()
        await trainer.pause()
        return (await run(trainer, make_run(tmp_path / "run", model_path, make_job())))[0]

    assert isinstance(asyncio.run(paused()), Paused)


def test_what_a_retry_would_only_repeat_is_returned_and_anything_else_raised(model_path: Path, tmp_path: Path) -> None:
    config = make_run(tmp_path / "run", model_path, make_job())
    assert config.store_root is not None
    assert config.pass_state is not None
    for shard in config.store_root.rglob("*.parquet"):
        shard.unlink()
    write_state(config.pass_state, PassState.FAILED)
    result, _ = asyncio.run(run(SoloTrainer(), config))
    assert isinstance(result, AttemptError)
    assert result.code == "reference_incomplete"

    config.pass_state.unlink()
    with pytest.raises(FileNotFoundError):
        asyncio.run(run(SoloTrainer(), config))


def test_reports_whose_way_to_the_driver_broke_are_taken_again() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        first, second, third = event("1"), event("2"), event("3")
        await mailbox.put(first, None)
        await mailbox.put(second, None)
        assert await mailbox.take(0, 1) == [first, second]
        assert await mailbox.take(0, 1) == [first, second]  # the answer was lost
        assert await mailbox.take(1, 1) == [second]
        late = asyncio.create_task(mailbox.take(2, 60))
        await asyncio.sleep(0)
        await mailbox.put(third, None)
        assert await late == [third]
        assert await mailbox.take(3, 0) == []

    asyncio.run(exchange())


def test_a_driver_that_waits_for_reports_can_be_woken() -> None:
    async def exchange() -> list[Report]:
        mailbox = Mailbox()
        waiting = asyncio.create_task(mailbox.take(0, 60))
        await asyncio.sleep(0)
        await mailbox.wake()
        return await waiting

    assert asyncio.run(exchange()) == []


def test_actors_get_nothing_of_the_drivers_own_variables() -> None:
    told = {"runtime_env": {"env_vars": {"PLUMBLINE_ATTEMPT_TOKEN": "t"}, "config": {"eager_install": True}}}
    left = json.loads(without_variables(json.dumps(told | {"metadata": {"job_submission_id": "a"}})))
    assert left == {"runtime_env": {"config": {"eager_install": True}}, "metadata": {"job_submission_id": "a"}}
    assert json.loads(without_variables('{"metadata": {}}')) == {"metadata": {}}
