"""Names of models: what they mean while a new one comes up, when it does not, and after a rollback."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import select

from service.controller.context import Controller
from service.controller.promote import reconcile
from service.db.serving_tables import Promotion
from service.db.session import Database
from service.db.tables import Deployment, Event, Job
from service.deployments import service as deployments
from service.errors import GateNotPassed, InvalidRequest, InvalidState, NotFound
from service.evaluations import gates
from service.evaluations.gate import Rule
from service.jobs.states import DeploymentState, JobState, PromotionState
from service.promotions import service as promotions
from service.serving.models import find
from service.settings import Settings
from tests.service.conftest import add_job, answers, deploy

NAME = "support"


@pytest.fixture
async def jobs(database: Database) -> list[Job]:
    """Three with models; those of the first two answer."""
    async with database.transaction() as session:
        made = [await add_job(session, state=JobState.SUCCEEDED) for _ in range(3)]
        for job in made[:2]:
            await deploy(session, job)
    return made


async def promote(database: Database, job: Job, name: str = NAME) -> Promotion:
    async with database.transaction() as session:
        return await promotions.promote(session, "ada", name, job.id)


async def meant(database: Database, name: str = NAME) -> str:
    """The job whose model the name means."""
    async with database.reading() as session:
        return (await find(session, "ada", name)).job.id


async def past(database: Database) -> Sequence[PromotionState]:
    """Oldest first."""
    async with database.reading() as session:
        return [one.state for one in reversed((await promotions.history(session, "ada", NAME))[1])]


async def settle(database: Database, settings: Settings) -> None:
    controller = Controller(settings, database, None, None, None, None)  # type: ignore[arg-type]
    await reconcile(controller)


async def test_a_model_that_answers_is_what_the_name_means_at_once(database: Database, jobs: list[Job]) -> None:
    first = await promote(database, jobs[0])
    assert (first.state, await meant(database)) == (PromotionState.CURRENT, jobs[0].id)
    assert (await promote(database, jobs[0])).id == first.id  # asked again
    await promote(database, jobs[1])
    assert await meant(database) == jobs[1].id
    assert await past(database) == [PromotionState.PAST, PromotionState.CURRENT]
    async with database.reading() as session:
        told = await session.scalars(select(Event.type).where(Event.job_id == jobs[1].id).order_by(Event.number))
        assert list(told)[-2:] == ["promotion.pending", "promotion.current"]
        with pytest.raises(NotFound):
            await find(session, "bob", NAME)


async def test_the_old_model_serves_until_the_new_one_answers(
    database: Database, settings: Settings, jobs: list[Job]
) -> None:
    await promote(database, jobs[0])
    pending = await promote(database, jobs[2])
    await settle(database, settings)
    assert (pending.state, await meant(database)) == (PromotionState.PENDING, jobs[0].id)
    async with database.transaction() as session:
        deployment = await session.get_one(Deployment, jobs[2].id)  # which the promotion asked for
        await answers(session, deployment)
    await settle(database, settings)
    assert await meant(database) == jobs[2].id


async def test_a_model_that_does_not_come_up_leaves_the_name_as_it_was(
    database: Database, settings: Settings, jobs: list[Job]
) -> None:
    await promote(database, jobs[0])
    await promote(database, jobs[2])
    async with database.transaction() as session:
        deployment = await session.get_one(Deployment, jobs[2].id)
        await deployments.set_state(session, deployment, DeploymentState.FAILED, "out of memory")
    await settle(database, settings)
    assert await meant(database) == jobs[0].id
    assert await past(database) == [PromotionState.CURRENT, PromotionState.FAILED]
    async with database.reading() as session:
        [failed, _] = (await promotions.history(session, "ada", NAME))[1]
    assert "out of memory" in (failed.message or "")


async def test_the_newer_of_two_promotions_counts(database: Database, settings: Settings, jobs: list[Job]) -> None:
    await promote(database, jobs[2])
    await promote(database, jobs[0])
    async with database.transaction() as session:
        await answers(session, await session.get_one(Deployment, jobs[2].id))
    await settle(database, settings)
    assert await meant(database) == jobs[0].id
    assert await past(database) == [PromotionState.WITHDRAWN, PromotionState.CURRENT]


async def test_promotions_at_once_leave_one_current(database: Database, jobs: list[Job]) -> None:
    await asyncio.gather(*(promote(database, job) for job in (jobs[0], jobs[1]) for _ in range(4)))
    assert (await past(database)).count(PromotionState.CURRENT) == 1
    assert await meant(database) in {jobs[0].id, jobs[1].id}


async def test_rollbacks_go_one_further_back_each_time(database: Database, jobs: list[Job]) -> None:
    async with database.transaction() as session:
        await deploy(session, jobs[2])
    ids = [(await promote(database, job)).id for job in jobs]
    for job in (jobs[1], jobs[0]):
        async with database.transaction() as session:
            await promotions.rollback(session, "ada", NAME)
        assert await meant(database) == job.id
    async with database.transaction() as session:
        with pytest.raises(InvalidState, match="nothing to go back to"):
            await promotions.rollback(session, "ada", NAME)
        with pytest.raises(NotFound):
            await promotions.rollback(session, "ada", NAME, "promotion-" + "0" * 21)
        await promotions.rollback(session, "ada", NAME, ids[2])
    assert await meant(database) == jobs[2].id


async def test_a_rollback_deploys_what_was_taken_down_since_and_waits_for_it(
    database: Database, settings: Settings, jobs: list[Job]
) -> None:
    await promote(database, jobs[0])
    await promote(database, jobs[1])
    async with database.transaction() as session:
        await deployments.removed(session, await deployments.unwant(session, jobs[0]))
    async with database.transaction() as session:
        back = await promotions.rollback(session, "ada", NAME)
    assert (back.state, await meant(database)) == (PromotionState.PENDING, jobs[1].id)
    async with database.transaction() as session:
        await answers(session, await session.get_one(Deployment, jobs[0].id))
    await settle(database, settings)
    assert await meant(database) == jobs[0].id


async def test_what_a_name_means_is_not_taken_down(database: Database, jobs: list[Job]) -> None:
    await promote(database, jobs[0])
    await promote(database, jobs[2], "other")  # pending
    for job, name in ((jobs[0], NAME), (jobs[2], "other")):
        async with database.transaction() as session:
            with pytest.raises(InvalidState, match=f"'{name}'"):
                await deployments.unwant(session, job)
    async with database.transaction() as session:
        await promotions.remove(session, "ada", NAME)
    async with database.transaction() as session:
        assert (await deployments.unwant(session, jobs[0])).state is DeploymentState.REMOVING
    with pytest.raises(NotFound):
        await meant(database)
    assert await past(database) == [PromotionState.PAST]


async def test_a_gate_that_is_not_passed_leaves_the_name_as_it_was(database: Database, jobs: list[Job]) -> None:
    await promote(database, jobs[0])
    async with database.transaction() as session:
        await gates.put(session, "ada", NAME, Rule(min_win_rate=0.5))
    with pytest.raises(GateNotPassed, match=f"no evaluation of job:{jobs[1].id}"):
        await promotions.request(database, "ada", NAME, jobs[1].id)
    assert await past(database) == [PromotionState.CURRENT]
    assert (await promotions.request(database, "ada", "other", jobs[1].id)).state is PromotionState.CURRENT


async def test_a_rollback_is_asked_for_what_the_gate_asks_for_now(database: Database, jobs: list[Job]) -> None:
    await promote(database, jobs[0])
    await promote(database, jobs[1])
    async with database.transaction() as session:
        await gates.put(session, "ada", "*", Rule(min_win_rate=0.5))
    async with database.transaction() as session:
        with pytest.raises(GateNotPassed, match=f"no evaluation of job:{jobs[0].id}"):
            await promotions.rollback(session, "ada", NAME)
    assert await meant(database) == jobs[1].id
    async with database.transaction() as session:
        await gates.delete(session, "ada", "*")
        await promotions.rollback(session, "ada", NAME)
    assert await meant(database) == jobs[0].id


@pytest.mark.parametrize(
    "name", ["", "Support", "job-1", "job:x", "ft:gpt", "hf:a", "a/b", "-a", "a" * 64, "a\n", "a\0"]
)
async def test_what_can_be_no_name_is_refused(database: Database, jobs: list[Job], name: str) -> None:
    with pytest.raises(InvalidRequest):
        await promote(database, jobs[0], name)
    async with database.reading() as session:
        for ask in (promotions.history, find):
            with pytest.raises(NotFound):
                await ask(session, "ada", name)


async def test_a_model_that_is_not_there_is_not_promoted(database: Database, jobs: list[Job]) -> None:
    async with database.transaction() as session:
        running = await add_job(session, state=JobState.RUNNING)
    with pytest.raises(InvalidState):
        await promote(database, running)
    async with database.transaction() as session:
        with pytest.raises(InvalidState, match="not exported"):
            await promotions.promote(session, "ada", NAME, running.id, 50)
        with pytest.raises(NotFound):
            await promotions.promote(session, "bob", NAME, jobs[0].id)
    with pytest.raises(NotFound):
        await meant(database)
