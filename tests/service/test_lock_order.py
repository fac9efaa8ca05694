"""Requests that lock the same rows lock them in one order: project, jobs, files, what belongs to a job.

Each pause makes room for the other request to take the lock that this one wants next, which PostgreSQL would then find
to be a deadlock.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.pair_tables import PairFlag
from service.db.session import Database
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.exports import service as exports
from service.jobs import lifecycle
from service.jobs.repository import JobRepository
from service.jobs.service import submit
from service.jobs.states import DeploymentState, ExportState, JobState
from service.pairs.actions import FlagAction
from service.pairs.export import export as export_corrected
from service.projects import service as projects
from service.projects import usage
from service.projects.quota import Quota
from service.settings import Settings
from service.spec import AlignmentJob, Storage
from service.spec.layout import step_name
from tests.service.conftest import add_file, add_job, deploy, make_model
from tests.service.test_exports import write_checkpoint

STEP = 50
OTHER_STEP = 60
PAUSE_S = 0.3
ROWS = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 8
Ask = Callable[[Database, Settings, Job], Awaitable[object]]


async def export_another(database: Database, settings: Settings, job: Job) -> object:
    return await exports.request(database, settings, "ada", job.id, OTHER_STEP)


async def retry(database: Database, _settings: Settings, job: Job) -> object:
    return await lifecycle.retry(database, "ada", job.id)


async def correct(database: Database, settings: Settings, job: Job) -> object:
    return await export_corrected(database, settings, "ada", job.id)


@pytest.fixture
async def job(database: Database, settings: Settings) -> Job:
    """Failed, of a project with limits, with two checkpoints, one of them exported, and a flagged pair."""
    file_id = await add_file(database, settings, ROWS)
    base = make_model(settings.storage_root / "models" / "tiny")
    spec = AlignmentJob.model_validate({"model": str(base), "data": {"train": file_id}, "serve": False})
    async with database.transaction() as session:
        await projects.create(session, "ada", Quota(max_live_jobs=10, max_storage_bytes=10**9))
        job = await add_job(session, state=JobState.FAILED, spec=spec.model_dump(mode="json"))
    write_checkpoint(settings, job)
    (settings.storage_root / "runs" / job.id / "checkpoints" / step_name(OTHER_STEP)).mkdir()
    await exports.request(database, settings, "ada", job.id, STEP)
    make_model(Storage(settings.storage_root).model(job.id, STEP))
    async with database.transaction() as session:
        export = await exports.find(session, job.id, STEP)
        assert export is not None
        export.state = ExportState.READY
        session.add(PairFlag(job_id=job.id, row=1, action=FlagAction.DROP, note="", key_id="key", created_at=utc_now()))
    return job


@pytest.mark.parametrize("ask", [export_another, retry, correct])
async def test_what_is_asked_of_a_job_does_not_wait_in_a_ring_with_a_new_job_that_starts_from_it(
    database: Database, settings: Settings, job: Job, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    train = job.spec["data"]["train"]
    new = AlignmentJob.model_validate({"model": f"job:{job.id}@{STEP}", "data": {"train": train}, "serve": False})
    _pause_after_locks(monkeypatch)
    (made, _), _ = await asyncio.gather(submit(database, settings, "ada", new), ask(database, settings, job))
    assert made.state is JobState.QUEUED


async def test_what_the_controller_sees_of_a_deployment_does_not_wait_in_a_ring_with_its_end(
    database: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.transaction() as session:
        seen = await deploy(session, job, STEP)
    guarded_update = deployments.guarded_update

    async def slowly(session: AsyncSession, row: Any, values: dict[str, Any], *guards: Any) -> bool:
        done = await guarded_update(session, row, values, *guards)
        await asyncio.sleep(PAUSE_S)
        return done

    async def see() -> None:
        async with database.transaction() as session:
            await deployments.set_state(session, seen, DeploymentState.DEPLOYING, "It is mended.")

    async def end() -> Deployment:
        async with database.transaction() as session:
            return await deployments.unwant(session, job, STEP)

    _pause_after_locks(monkeypatch)
    monkeypatch.setattr(deployments, "guarded_update", slowly)
    done = await asyncio.gather(see(), end(), return_exceptions=True)
    assert not [one for one in done if isinstance(one, Exception) and not isinstance(one, deployments.InvalidState)]


def _pause_after_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    hold_quota, one = usage.hold_quota, JobRepository._one

    async def hold_slowly(session: AsyncSession, project_id: str) -> Quota:
        quota = await hold_quota(session, project_id)
        await asyncio.sleep(PAUSE_S)
        return quota

    async def lock_slowly(self: JobRepository, job_id: str, query: Any, lock: bool, **parameters: str) -> Job:
        job = await one(self, job_id, query, lock, **parameters)
        if lock:
            await asyncio.sleep(PAUSE_S)
        return job

    monkeypatch.setattr(usage, "hold_quota", hold_slowly)
    monkeypatch.setattr(JobRepository, "_one", lock_slowly)
