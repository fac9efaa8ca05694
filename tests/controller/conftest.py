"""A controller over a real SQLite file and a real Ray, whose attempts are one-line programs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from api.cli.local_ray import LocalRay
from service.cluster.http import connect
from service.cluster.jobs import RayJob, RayJobStatus
from service.controller import start
from service.controller.context import ClusterCode, Controller, make_controller
from service.db.session import Database
from service.db.tables import Attempt, Job
from service.jobs.attempts import note_first_word
from service.jobs.repository import AttemptRepository, JobRepository
from service.settings import Settings
from tests.service.conftest import add_job

SLEEPS = "python -c 'import time; time.sleep(600)'"
SUCCEEDS = "python -c 'print(42)'"
FAILS = """python -c 'print("about to fail"); raise SystemExit(3)'"""


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    home = tmp_path_factory.mktemp("ray")
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # Serve builds tests.controller.tiny_app
    ray = LocalRay(home)
    try:
        ray.start()
        ray.wait_until_ready()
        yield ray
    finally:
        ray.stop()
        patch.undo()


@pytest.fixture
def settings(tmp_path: Path, ray: LocalRay, database_url: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        ray_url=ray.url,
        ray_token=ray.token,
        serve_url=f"http://127.0.0.1:{ray.serve_port}",
        api_url="http://127.0.0.1:9",
        secret="a secret of this test",
        max_attempts=2,
        cancel_grace_s=0.5,
        retry_backoff_s=0.2,
        reconcile_every_s=0.2,
        lease_s=600,  # a pass starts what fits into a share of it, and this machine may be busy
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.sqlalchemy_url)
    yield database
    await database.close()


@pytest.fixture
async def make(settings: Settings, database: Database) -> AsyncIterator[Callable[..., Controller]]:
    """A controller whose attempts run `attempt`; further arguments override settings."""
    client = connect(settings)
    made: list[Controller] = []

    def make(attempt: str = SLEEPS, **changed: object) -> Controller:
        code = ClusterCode(attempt=attempt, serving="tests.controller.tiny_app:build")
        made.append(make_controller(settings.model_copy(update=changed), database, client, code))
        return made[-1]

    yield make
    async with database.reading() as session:
        for attempt in await AttemptRepository(session).active():
            await make().jobs.stop(attempt.id)
    await client.aclose()


async def queue(controller: Controller, **columns: object) -> Job:
    async with controller.database.transaction() as session:
        return await add_job(session, **columns)


async def look(controller: Controller, job: Job) -> tuple[Job, Attempt | None]:
    """The job and its newest attempt as they are stored now."""
    async with controller.database.reading() as session:
        job = await JobRepository(session).get(job.id)
        return job, await AttemptRepository(session).current(job)


async def speak(controller: Controller, job: Job) -> None:
    """What the first report of the job's attempt does."""
    async with controller.database.transaction() as session:
        job = await JobRepository(session).get(job.id)
        attempt = await AttemptRepository(session).current(job)
        assert attempt is not None
        await note_first_word(session, job, attempt)


async def start_and_speak(controller: Controller, job: Job) -> None:
    """The job's attempt runs on the cluster and has reported."""
    await start.reconcile(controller)

    async def placed() -> bool:
        found = await ray_job(controller, job)
        return found is not None and found.status is not RayJobStatus.PENDING

    await until(placed)
    await speak(controller, job)


async def ray_job(controller: Controller, job: Job) -> RayJob | None:
    _, attempt = await look(controller, job)
    return None if attempt is None else await controller.jobs.get(attempt.id)


async def until(holds: Callable[[], Awaitable[bool]], patience_s: float = 60) -> None:
    """Wait for something that must come about."""
    deadline = time.monotonic() + patience_s
    while not await holds():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.1)
