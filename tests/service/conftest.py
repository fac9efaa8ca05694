"""A real database with the real migrations for each test, and short ways to make what a test starts from."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.files import service as files
from service.ids import new_id
from service.jobs.states import DeploymentState, JobState
from service.settings import Settings
from service.spec import AlignmentJob


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(home=tmp_path, database_url=database_url, secret="a secret of this test", max_attempts=2)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.sqlalchemy_url)
    yield database
    await database.close()


async def add_job(session: AsyncSession, *, project_id: str = "ada", serve: bool = False, **columns: object) -> Job:
    """A queued job, with no event yet."""
    spec = AlignmentJob.model_validate({"model": "/models/tiny", "data": {"train": "file-" + "0" * 21}, "serve": serve})
    values = {
        "id": new_id("job"),
        "project_id": project_id,
        "body_sha256": "0" * 64,
        "spec": spec.model_dump(mode="json"),
        "state": JobState.QUEUED,
        "progress": {},
        "num_attempts": 0,
        "num_failures": 0,
        "gpu_seconds": 0.0,
        "last_event": 0,
        "last_metric": 0,
        "created_at": utc_now(),
    }
    job = Job(**(values | columns))
    session.add(job)
    await session.flush()
    return job


async def add_file(database: Database, settings: Settings, content: bytes, *, project_id: str = "ada") -> str:
    """Upload `content` and return the file's ID."""

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    return (await files.store(database, settings, project_id, "pairs.jsonl", chunks())).id


def make_model(directory: Path, *without: str) -> Path:
    """A directory that looks like a model to the control plane, which opens no weights."""
    directory.mkdir(parents=True)
    for name, content in {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "w"}.items():
        if name not in without:
            (directory / name).write_text(content)
    return directory


async def deploy(session: AsyncSession, job: Job, step: int | None = None) -> Deployment:
    """Base and aligned model answer, each on an engine at the path of the job's ID under its side's name."""
    deployment = await deployments.want(session, job, step)
    await answers(session, deployment)
    return deployment


async def answers(session: AsyncSession, deployment: Deployment) -> None:
    """As the controller writes it down when engines have come up."""
    place = {"engine": deployment.job_id, "weights": "/models/tiny", "adapters": False}
    await deployments.set_places(session, deployment, {side: place | {"model": side} for side in ("base", "aligned")})
    await deployments.set_state(session, deployment, DeploymentState.READY)
