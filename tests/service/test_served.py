"""Where a model is asked, by all that it can be called."""

import pytest

from service.clock import utc_now
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.deployments.uses import DeploymentUses
from service.errors import ModelNotDeployed, NotFound
from service.jobs.states import DeploymentState, ExportState, JobState
from service.promotions import service as promotions
from service.serving.models import require_served
from service.settings import Settings
from tests.service.conftest import add_job, deploy

STEP = 20


@pytest.fixture
async def job(database: Database) -> Job:
    """Deployed, and so is its checkpoint; each has a name."""
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
        now = utc_now()
        session.add(CheckpointExport(job_id=job.id, step=STEP, state=ExportState.READY, created_at=now, updated_at=now))
        await session.flush()
        for step, name in ((None, "support"), (STEP, "support-early")):
            await deploy(session, job, step)
            await promotions.promote(session, "ada", name, job.id, step)
    return job


async def ask(database: Database, settings: Settings, name: str, project_id: str = "ada") -> tuple[int | None, str]:
    """The step that the model `name` is of, and its side's name on the engine."""
    served = await require_served(database, settings, DeploymentUses(), project_id, name)
    assert served.deployment_id == deployments.deployment_id(served.job_id, served.step)
    assert served.base_url == f"{settings.serve_url}/{served.job_id}/v1"
    return served.step, served.model


NAMES = {
    "job:{id}": (None, "aligned"),
    "{id}": (None, "aligned"),
    "job:{id}:base": (None, "base"),
    f"job:{{id}}@{STEP}": (STEP, "aligned"),
    f"job:{{id}}:ckpt-step-{STEP}": (STEP, "aligned"),
    f"job:{{id}}@{STEP}:base": (STEP, "base"),
    "support": (None, "aligned"),
    "support-early": (STEP, "aligned"),
}


@pytest.mark.parametrize(("name", "means"), NAMES.items())
async def test_a_model_is_found_by_each_of_its_names_in_its_own_project_while_it_is_deployed(
    database: Database, settings: Settings, job: Job, name: str, means: tuple[int | None, str]
) -> None:
    name = name.format(id=job.id)
    assert await ask(database, settings, name) == means
    with pytest.raises(NotFound):
        await ask(database, settings, name, "bob")
    async with database.transaction() as session:
        deployment = await deployments.find(session, job, means[0])
        assert deployment is not None
        await deployments.set_state(session, deployment, DeploymentState.REMOVING)
    with pytest.raises(ModelNotDeployed):
        await ask(database, settings, name)


@pytest.mark.parametrize(
    "name", ["", "support:base", "job:", "job:{id}@0", "job:{id}@21", "job:{id}x", "supporT", "\0"]
)
async def test_anything_else_is_no_model(database: Database, settings: Settings, job: Job, name: str) -> None:
    with pytest.raises(NotFound, match="There is no model"):
        await ask(database, settings, name.format(id=job.id))
