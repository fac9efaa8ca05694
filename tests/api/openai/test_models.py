from datetime import timedelta
from typing import Any

import openai as package_errors
import pytest
from openai import AsyncOpenAI

from api.app import create_app
from service.clock import utc_now
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.deployments import service as deployments
from service.errors import InvalidState
from service.jobs.repository import JobRepository
from service.jobs.service import submit
from service.jobs.states import DeploymentState, ExportState, JobState
from service.promotions import service as promotions
from service.settings import Settings
from service.spec import AlignmentJob
from tests.api.conftest import Server
from tests.api.openai.conftest import package
from tests.service.conftest import add_job, make_model


async def publish(database: Database, settings: Settings, *, model: str = "/models/tiny", **columns: Any) -> str:
    """A job that has succeeded, and its model; returns the model's name."""
    spec = AlignmentJob.model_validate({"model": model, "data": {"train": "file-" + "0" * 21}, "name": "courteous"})
    values = {"state": JobState.SUCCEEDED, "finished_at": utc_now(), "spec": spec.model_dump(mode="json")}
    async with database.transaction() as session:
        job = await add_job(session, **(values | columns))
    make_model(settings.storage_root / "models" / job.id)
    return f"job:{job.id}"


async def test_what_was_aligned_is_listed_and_deleted(
    openai: AsyncOpenAI, database: Database, settings: Settings, server: Server, bob: dict[str, str]
) -> None:
    older = await publish(database, settings, finished_at=utc_now() - timedelta(days=1))
    newer = await publish(database, settings)
    async with database.transaction() as session:
        failed = await add_job(session, state=JobState.FAILED)

    listed = [model async for model in openai.models.list()]
    assert [model.id for model in listed] == [newer, older]
    assert await openai.models.retrieve(newer) == listed[0]
    assert (listed[0].object, listed[0].owned_by, listed[0].model_extra) == (
        "model",
        "ada",
        {"base": "/models/tiny", "name": "courteous"},
    )
    async with package(server, bob) as theirs:
        assert [model async for model in theirs.models.list()] == []
        for name in (newer, f"job:{failed.id}", "gpt-4o-mini"):
            with pytest.raises(package_errors.NotFoundError):
                await theirs.models.delete(name)

    deleted = await openai.models.delete(newer)
    assert (deleted.id, deleted.deleted) == (newer, True)
    assert [model.id async for model in openai.models.list()] == [older]
    assert not (settings.storage_root / "models" / newer.removeprefix("job:")).exists()
    job = await openai.fine_tuning.jobs.retrieve(newer.removeprefix("job:"))
    assert (job.status, job.fine_tuned_model) == ("succeeded", None)
    for call in (openai.models.retrieve, openai.models.delete):
        with pytest.raises(package_errors.NotFoundError):
            await call(newer)


async def test_models_are_listed_in_pages_that_repeat_and_leave_out_none(
    openai: AsyncOpenAI, database: Database, settings: Settings
) -> None:
    for number in range(3):
        name = await publish(database, settings)
        async with database.transaction() as session:
            job = await JobRepository(session).get(name.removeprefix("job:"), lock=True)
            deployment = await deployments.want(session, job)
            await deployments.set_state(session, deployment, DeploymentState.READY)
            await promotions.promote(session, "ada", f"name-{number}", job.id)
            if number:
                row = {"state": ExportState.READY, "generation": 1, "failures": 0}
                for step in (4, 8):
                    at = {"created_at": utc_now(), "updated_at": utc_now()}
                    session.add(CheckpointExport(job_id=job.id, step=step, **row, **at))
    whole = [model.id async for model in openai.models.list()]
    assert len(whole) == len(set(whole)) == 3 + 6 + 4
    for limit in (1, 2, 5):
        paged: list[str] = []
        more = True
        while more:
            query = {"limit": limit} | ({"after": paged[-1]} if paged else {})
            page = await openai.models.list(extra_query=query)
            assert len(page.data) <= limit
            paged += [model.id for model in page.data]
            more = (page.model_extra or {})["has_more"]
        assert paged == whole
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.models.list(extra_query={"after": "\0"})
    assert refused.value.param == "after"


async def test_a_deleted_model_is_not_used_again(
    openai: AsyncOpenAI, database: Database, settings: Settings, pairs: str
) -> None:
    name = await publish(database, settings)
    await openai.models.delete(name)
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.fine_tuning.jobs.create(model=name, training_file=pairs, method={"type": "dpo"})
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")
    async with database.transaction() as session:
        job = await JobRepository(session).get(name.removeprefix("job:"))
        with pytest.raises(InvalidState, match="was deleted"):
            await deployments.want(session, job)


async def test_a_model_that_is_deployed_is_not_deleted(
    openai: AsyncOpenAI, database: Database, settings: Settings
) -> None:
    name = await publish(database, settings)
    async with database.transaction() as session:
        await deployments.want(session, await JobRepository(session).get(name.removeprefix("job:")))
    with pytest.raises(package_errors.ConflictError) as refused:
        await openai.models.delete(name)
    assert "/deployment takes it down" in refused.value.message


async def test_a_model_on_which_something_is_built_is_not_deleted(
    openai: AsyncOpenAI, database: Database, settings: Settings, pairs: str
) -> None:
    base, reference = await publish(database, settings), await publish(database, settings)
    built = await publish(database, settings, model=base)
    spec = AlignmentJob.model_validate({"model": base, "reference": reference, "data": {"train": pairs}})
    job, _ = await submit(database, settings, "ada", spec)
    for name, user in ((reference, job.id), (base, job.id)):
        with pytest.raises(package_errors.ConflictError) as refused:
            await openai.models.delete(name)
        assert user in refused.value.message
    await openai.fine_tuning.jobs.cancel(job.id)
    with pytest.raises(package_errors.ConflictError) as refused:
        await openai.models.delete(base)
    assert built.removeprefix("job:") in refused.value.message
    for name in (reference, built, base):
        await openai.models.delete(name)


async def test_a_deletion_that_was_killed_is_finished_at_the_next_start(database: Database, settings: Settings) -> None:
    kept, name = await publish(database, settings), await publish(database, settings, model_deleted_at=utc_now())
    directory = settings.storage_root / "models"
    assert (directory / name.removeprefix("job:")).exists()
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        assert [path.name for path in directory.iterdir()] == [kept.removeprefix("job:")]
