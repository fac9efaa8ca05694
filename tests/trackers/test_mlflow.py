"""Jobs as MLflow has them afterwards: its own client on its own SQLite store."""

from typing import Any

import pytest

from service.clock import utc_now
from service.controller.context import Controller
from service.controller.track import Track
from service.db.session import Database
from service.db.tables import Job
from service.jobs.states import JobState
from service.trackers.base import TrackerError
from service.trackers.mlflow import Mlflow
from tests.trackers.conftest import end, job_with_metrics, metric

tracking = pytest.importorskip("mlflow.tracking", reason="the extra `mlflow` is not installed")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.sqlite3"


def runs(uri: str, job: Job) -> list[Any]:
    client = tracking.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("plumbline")
    return list(client.search_runs([experiment.experiment_id], f"tags.`plumbline.job_id` = '{job.id}'"))


def curve(uri: str, run: Any, name: str) -> list[tuple[int, float]]:
    history = tracking.MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return sorted((one.step, one.value) for one in history)


async def test_a_jobs_values_and_its_end_are_in_one_run(uri: str, controller: Controller, database: Database) -> None:
    job = await job_with_metrics(database, 3, state=JobState.RUNNING)
    track = Track(Mlflow(uri, "plumbline"))
    await track.reconcile(controller)
    (run,) = runs(uri, job)
    assert run.info.status == "RUNNING"
    assert run.data.tags["plumbline.project_id"] == "ada"
    assert curve(uri, run, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert "train/kl" not in run.data.metrics
    await end(database, job, JobState.CANCELLED)
    await track.reconcile(controller)
    (run,) = runs(uri, job)
    assert run.info.status == "KILLED"
    assert await track._behind(controller) == []


async def test_a_controller_that_dies_before_it_notes_what_it_told_doubles_nothing(
    uri: str, controller: Controller, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await job_with_metrics(database, 2, state=JobState.RUNNING)
    track = Track(Mlflow(uri, "plumbline"))

    async def die(*_: object) -> bool:
        raise KeyError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("service.controller.track.guarded_update", die)
        with pytest.raises(KeyError):
            await track.reconcile(controller)
    await Track(Mlflow(uri, "plumbline")).reconcile(controller)
    (run,) = runs(uri, job)
    assert curve(uri, run, "train/loss") == [(1, 1.0), (2, 0.5)]


async def test_a_run_that_was_made_before_its_row_is_found_again(
    uri: str, controller: Controller, database: Database
) -> None:
    job = await job_with_metrics(database, 1)
    made = Mlflow(uri, "plumbline").open(job)
    await Track(Mlflow(uri, "plumbline")).reconcile(controller)
    assert [run.info.run_id for run in runs(uri, job)] == [made]


async def test_a_long_job_is_told_in_portions(
    uri: str, controller: Controller, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.controller.track._PORTION", 2)
    job = await job_with_metrics(database, 3, state=JobState.SUCCEEDED, finished_at=utc_now())
    track = Track(Mlflow(uri, "plumbline"))
    await track.reconcile(controller)
    assert [len(curve(uri, run, "train/loss")) for run in runs(uri, job)] == [2]
    await track.reconcile(controller)
    assert [(len(curve(uri, run, "train/loss")), run.info.status) for run in runs(uri, job)] == [(3, "FINISHED")]


async def test_with_more_running_jobs_than_a_pass_tells_each_has_its_turn(
    uri: str, controller: Controller, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.controller.track._JOBS", 1)
    made = [await job_with_metrics(database, 1, state=JobState.RUNNING) for _ in range(2)]
    jobs = sorted(made, key=lambda job: job.id)
    track = Track(Mlflow(uri, "plumbline"))
    for number in (2, 3):
        await track.reconcile(controller)
        async with database.transaction() as session:  # both have more to tell than they had
            for job in jobs:
                session.add(metric(job, number))
                (await session.get_one(Job, job.id)).last_metric = number
    assert [len(curve(uri, run, "train/loss")) for job in jobs for run in runs(uri, job)] == [1, 2]


async def test_a_job_that_the_tracker_refuses_keeps_no_other_from_being_told(
    uri: str, controller: Controller, database: Database
) -> None:
    bad = await job_with_metrics(database, 0, last_metric=1)
    async with database.transaction() as session:
        session.add(metric(bad, 1, values={"a name, that MLflow refuses: ?": 1.0}))
    good = await job_with_metrics(database, 1)
    with pytest.raises(TrackerError, match="MLflow"):
        await Track(Mlflow(uri, "plumbline")).reconcile(controller)
    (run,) = runs(uri, good)
    assert curve(uri, run, "train/loss") == [(1, 1.0)]


async def test_jobs_of_long_ago_are_left_alone(uri: str, controller: Controller, database: Database) -> None:
    await job_with_metrics(database, 1, id="job-" + "0" * 21)
    assert await Track(Mlflow(uri, "plumbline"))._behind(controller) == []
