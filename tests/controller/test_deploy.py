"""The deployments' rows against a real Ray Serve."""

from collections.abc import Callable

import httpx

from service.controller.context import Controller
from service.controller.deploy import Deploy
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState, JobState
from service.spec import AlignmentJob
from tests.controller.conftest import queue, until

Make = Callable[..., Controller]


def _spec(model: object, *, serve: bool = True) -> dict[str, object]:
    spec = {"model": model, "data": {"train": "file-" + "0" * 21}, "losses": [{"type": "sft"}], "serve": serve}
    return AlignmentJob.model_validate(spec).model_dump(mode="json")


async def _deployed(controller: Controller, model: str = "/models/tiny") -> Job:
    job = await queue(controller, state=JobState.SUCCEEDED, spec=_spec(model))
    await _ask(controller, job, deployments.want)
    return job


async def _ask(controller: Controller, job: Job, what: Callable[..., object]) -> None:
    async with controller.database.transaction() as session:
        await what(session, await JobRepository(session).get(job.id))  # type: ignore[misc]


async def _find(controller: Controller, job: Job) -> Deployment | None:
    async with controller.database.reading() as session:
        return await deployments.find(session, job)


async def _until(controller: Controller, job: Job, state: DeploymentState | None) -> Deployment | None:
    deploy = Deploy()

    async def reached() -> bool:
        await deploy.reconcile(controller)
        row = await _find(controller, job)
        return (row.state if row else None) == state

    await until(reached, patience_s=120)
    return await _find(controller, job)


async def test_a_deployment_becomes_ready_answers_and_goes_again(make: Make) -> None:
    controller = make()
    job = await _deployed(controller)
    row = await _until(controller, job, DeploymentState.READY)
    assert row is not None
    assert row.places is not None
    engines = {row.places[side]["engine"] for side in ("base", "aligned")}
    assert len(engines) == 2  # all weights were trained
    async with httpx.AsyncClient(base_url=controller.settings.serve_url) as client:
        assert {(await client.get(f"/{engine}")).text for engine in engines} == engines
    await _ask(controller, job, deployments.unwant)
    await _until(controller, job, None)
    assert not engines & set(await controller.serve.get())


async def test_one_that_fails_says_why_and_leaves_the_others_alone(make: Make) -> None:
    controller = make()
    good = await _deployed(controller)
    await _until(controller, good, DeploymentState.READY)
    bad = await _deployed(controller, "/models/broken")
    row = await _until(controller, bad, DeploymentState.FAILED)
    assert row is not None
    assert row.message is not None
    assert "/models/broken: " in row.message
    assert "the base has no weights in it" in row.message
    assert (await _until(controller, good, DeploymentState.READY)) is not None
    await _ask(controller, good, deployments.unwant)
    await _until(controller, good, None)
