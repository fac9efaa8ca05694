"""Jobs as W&B's client wrote them offline: its own client, and its own files read back."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from api.cli.processes import free_port
from service.clock import utc_now
from service.controller.context import Controller
from service.controller.track import Track
from service.db.session import Database
from service.jobs.states import JobState
from service.settings import Settings
from service.trackers import trackers
from service.trackers.base import TrackerError
from service.trackers.wandb import Wandb
from tests.trackers.conftest import end, job_with_metrics, metric
from tests.trackers.wandb_files import files, history, records, state

pytest.importorskip("wandb", reason="the extra `wandb` is not installed")

KEY = "0123456789abcdef" * 2 + "planted0"


def tracker(settings: Settings) -> Wandb:
    chosen = {"wandb_project": "alignment", "wandb_offline": True, "wandb_api_key": SecretStr(KEY)}
    (made,) = trackers(settings.model_copy(update=chosen))
    assert isinstance(made, Wandb)
    return made


def directory(settings: Settings) -> Path:
    return settings.storage_root / "wandb"


def rows(settings: Settings, run_id: str) -> list[tuple[int, Any, Any]]:
    return [(row["_step"], row["step"], row.get("train/loss")) for row in history(directory(settings), run_id)]


async def test_a_jobs_values_its_options_and_its_end_are_in_one_run(
    controller: Controller, database: Database, settings: Settings
) -> None:
    job = await job_with_metrics(database, 3, state=JobState.RUNNING)
    track = Track(tracker(settings))
    await track.reconcile(controller)
    await end(database, job, JobState.FAILED)
    await track.reconcile(controller)
    assert rows(settings, job.id) == [(1, 1, 1.0), (2, 2, 0.5), (3, 3, pytest.approx(1 / 3))]
    assert state(directory(settings), job.id) == ("failed", 1)
    assert await track._behind(controller) == []
    (file,) = files(directory(settings), job.id)
    (run,) = [one.run for one in records(file) if one.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.project) == (job.id, "alignment")
    assert {"model", "losses", "training", "plumbline"} <= {item.key for item in run.config.update}
    written = b"".join(path.read_bytes() for path in directory(settings).rglob("*") if path.is_file())
    assert KEY.encode() not in written


async def test_a_controller_that_dies_before_it_notes_what_it_told_doubles_nothing(
    controller: Controller, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await job_with_metrics(database, 2, state=JobState.RUNNING)
    first = Track(tracker(settings))

    async def die(*_: object) -> bool:
        raise KeyError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("service.controller.track.guarded_update", die)
        with pytest.raises(KeyError):
            await first.reconcile(controller)
    await first.leave()
    await end(database, job, JobState.SUCCEEDED)
    await Track(tracker(settings)).reconcile(controller)
    assert len(files(directory(settings), job.id)) == 2
    assert rows(settings, job.id) == [(1, 1, 1.0), (2, 2, 0.5)]
    assert state(directory(settings), job.id) == ("succeeded", 0)


async def test_a_run_goes_on_from_what_the_server_has_and_not_from_what_was_noted(
    controller: Controller, database: Database, settings: Settings
) -> None:
    """The client sends in the background: a process that was killed may have noted more than it had sent, or less."""
    job = await job_with_metrics(database, 4, state=JobState.RUNNING)
    made = tracker(settings)
    track = Track(made)
    await track.reconcile(controller)
    made.open(job)
    for reached, expected in ((2, 2), (9, 9)):
        made._reached[job.id] = reached
        assert made.told(job, job.id, 4) == expected
        assert made.told(job, job.id, 4) == 4, "asked once, when the run is opened"
    await track.leave()


async def test_a_resumed_run_of_training_repeats_steps_under_new_numbers(
    controller: Controller, database: Database, settings: Settings
) -> None:
    job = await job_with_metrics(database, 2, last_metric=3)
    async with database.transaction() as session:
        session.add(metric(job, 3, step=2, values={"loss": 0.25}))
    await end(database, job, JobState.CANCELLED)
    await Track(tracker(settings)).reconcile(controller)
    assert rows(settings, job.id) == [(1, 1, 1.0), (2, 2, 0.5), (3, 2, 0.25)]


async def test_a_server_that_is_away_is_told_later_and_holds_up_no_pass(
    controller: Controller, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.controller.track._MAX_FAILURES", 1)
    jobs = [await job_with_metrics(database, 1, state=JobState.RUNNING) for _ in range(2)]
    url = f"http://127.0.0.1:{free_port()}"
    away = Wandb("alignment", directory(settings), entity="team", url=url, api_key=KEY, offline=False)
    track = Track(away)
    with monkeypatch.context() as patched:
        patched.setattr("service.trackers.wandb._INIT_TIMEOUT_S", 0.5)
        with pytest.raises(TrackerError, match="W&B") as told:
            await track.reconcile(controller)
    assert KEY not in str(told.value)
    assert len(track.again_at) == 1
    assert len(await track._behind(controller)) == 2

    back = Track(tracker(settings))
    for job in jobs:
        await end(database, job, JobState.SUCCEEDED)
    await back.reconcile(controller)
    assert [len(rows(settings, job.id)) for job in jobs] == [1, 1]


async def test_jobs_of_long_ago_are_left_alone(controller: Controller, database: Database, settings: Settings) -> None:
    await job_with_metrics(database, 1, id="job-" + "0" * 21, state=JobState.SUCCEEDED, finished_at=utc_now())
    await Track(tracker(settings)).reconcile(controller)
    assert not directory(settings).exists()
