import pytest
from sqlalchemy import select

from service.db.session import Database
from service.db.tables import Event, Job
from service.deployments import service as deployments
from service.errors import InvalidState, NotFound
from service.jobs.states import DeploymentState, JobState
from tests.service.conftest import add_job


@pytest.fixture
async def job(database: Database) -> Job:
    async with database.transaction() as session:
        return await add_job(session, state=JobState.SUCCEEDED)


async def test_only_a_succeeded_job_has_something_to_deploy(database: Database) -> None:
    async with database.transaction() as session:
        running = await add_job(session, state=JobState.RUNNING)
        with pytest.raises(InvalidState, match="running"):
            await deployments.want(session, running)


async def test_wanting_it_twice_is_wanting_it_once(database: Database, job: Job) -> None:
    async with database.transaction() as session:
        await deployments.want(session, job)
        again = await deployments.want(session, job)
        events = (await session.scalars(select(Event.type))).all()
    assert (again.state, again.generation) == (DeploymentState.DEPLOYING, 1)
    assert list(events) == ["deployment.deploying"]


async def test_a_new_wish_after_a_failure_tries_again(database: Database, job: Job) -> None:
    async with database.transaction() as session:
        deployment = await deployments.want(session, job)
        await deployments.set_state(session, deployment, DeploymentState.FAILED, "no memory left")
        assert list(await deployments.all_wanted(session)) == []
        again = await deployments.want(session, job)
    assert (again.state, again.message, again.generation) == (DeploymentState.DEPLOYING, None, 2)


async def test_an_observation_of_what_was_changed_meanwhile_is_refused(database: Database, job: Job) -> None:
    async with database.transaction() as session:
        await deployments.want(session, job)
    async with database.reading() as session:
        [seen] = await deployments.all_wanted(session)
    async with database.transaction() as session:
        await deployments.unwant(session, job)
    with pytest.raises(InvalidState):
        async with database.transaction() as session:
            await deployments.set_state(session, seen, DeploymentState.READY)


async def test_a_deployment_is_forgotten_once_serve_has_let_go(database: Database, job: Job) -> None:
    async with database.transaction() as session:
        await deployments.want(session, job)
        going = await deployments.unwant(session, job)
        assert going.state is DeploymentState.REMOVING
        await deployments.removed(session, going)
        with pytest.raises(NotFound):
            await deployments.get(session, job)
        events = (await session.scalars(select(Event.type).order_by(Event.number))).all()
    assert list(events) == ["deployment.deploying", "deployment.removing", "deployment.removed"]


async def test_what_is_wanted_again_is_not_forgotten(database: Database, job: Job) -> None:
    async with database.transaction() as session:
        await deployments.want(session, job)
        await deployments.unwant(session, job)
    async with database.reading() as session:
        [going] = await deployments.all_deployments(session)
    async with database.transaction() as session:
        await deployments.want(session, job)
    with pytest.raises(InvalidState):
        async with database.transaction() as session:
            await deployments.removed(session, going)


async def test_taking_down_what_is_not_up_is_not_found(database: Database, job: Job) -> None:
    async with database.transaction() as session:
        with pytest.raises(NotFound):
            await deployments.unwant(session, job)
