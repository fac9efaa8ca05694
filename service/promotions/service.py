"""Promoting models to names.

A name is a row that promotions queue on. What it means changes in one transaction, when the new model answers: until
then it means the one before. Every promotion stays as the name's history, and a rollback is one too.
"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.serving_tables import ModelName, Promotion
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.errors import InvalidRequest, InvalidState, NotFound
from service.evaluations import gates
from service.ids import new_id
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import DeploymentState, PromotionState
from service.promotions.names import is_name


async def request(database: Database, project_id: str, name: str, job_id: str, step: int | None = None) -> Promotion:
    """Promote the model if it passes the name's gate. Raises what `promote` does, and GateNotPassed."""
    check_name(name)
    async with database.transaction() as session:
        await gates.require_passed(session, project_id, name, job_id, step)
        return await promote(session, project_id, name, job_id, step)


async def promote(
    session: AsyncSession,
    project_id: str,
    name: str,
    job_id: str,
    step: int | None = None,
    *,
    restores: str | None = None,
) -> Promotion:
    """Make `name` mean the model of the job, or of its exported checkpoint after `step`, as soon as that answers: at
    once if it does, else when it is deployed, which is asked for here. What is current or pending already is left so.
    Asks no gate: `request` and `rollback` do.

    restores: the earlier promotion that this one goes back to.
    Raises InvalidRequest for what can be no name, NotFound, and InvalidState if there is no such model.
    """
    check_name(name)
    job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
    held = await _hold(session, project_id, name)
    for id in (held.pending_id, held.current_id if held.pending_id is None else None):
        if id is not None and _is(await _get(session, id), job, step):
            return await _get(session, id)
    deployment = await deployments.want(session, job, step)
    await _withdraw_pending(session, held, "Another model was promoted before it answered.")
    now = utc_now()
    promotion = Promotion(
        id=new_id("promotion"),
        project_id=project_id,
        name=name,
        job_id=job.id,
        step=step,
        state=PromotionState.PENDING,
        restores=restores,
        created_at=now,
    )
    session.add(promotion)
    held.pending_id, held.updated_at = promotion.id, now
    await session.flush()
    await _tell(session, promotion, "pending", f"It is to be '{name}' as soon as it answers.")
    await audit.record(session, f"{name}: {deployments.deployment_id(job.id, step)}")
    if deployment.state is DeploymentState.READY:
        await _make_current(session, held, promotion)
    return promotion


async def rollback(session: AsyncSession, project_id: str, name: str, to: str | None = None) -> Promotion:
    """Go back to what the name meant before, or in the promotion `to`, if that passes the gate that the name has now.
    Going back again goes one further.

    Raises NotFound if there is no such name or promotion, InvalidState if there is nothing to go back to or its model
    is gone, and GateNotPassed.
    """
    _, past = await history(session, project_id, name)
    target = _one_of(past, to) if to is not None else _before(past)
    restores = target.restores or target.id
    await gates.require_passed(session, project_id, name, target.job_id, target.step)
    return await promote(session, project_id, name, target.job_id, target.step, restores=restores)


async def remove(session: AsyncSession, project_id: str, name: str) -> None:
    """The name means nothing from then on; its history stays. Raises NotFound."""
    held = await _hold(session, project_id, name, make=False)
    await _withdraw_pending(session, held, "The name was deleted before it answered.")
    await _end_current(session, held)
    await audit.record(session, name)


async def names(
    session: AsyncSession, project_id: str, *, limit: int, after: str | None = None
) -> Sequence[tuple[ModelName, Promotion]]:
    """Those that mean a model, and which, by name. after: the last one of the page before."""
    found = (
        select(ModelName, Promotion)
        .join(Promotion, Promotion.id == ModelName.current_id)
        .where(ModelName.project_id == project_id)
        .order_by(ModelName.name)
        .limit(limit)
    )
    if after is not None:
        found = found.where(ModelName.name > after)
    return [(name, promotion) for name, promotion in await session.execute(found)]


async def history(session: AsyncSession, project_id: str, name: str) -> tuple[ModelName, Sequence[Promotion]]:
    """The name and its promotions, newest first. Raises NotFound."""
    held = await session.get(ModelName, (project_id, name), populate_existing=True) if is_name(name) else None
    if held is None:
        raise NotFound("There is no such name among yours. GET /v1/models lists the models that there are.")
    mine = select(Promotion).where(Promotion.project_id == project_id, Promotion.name == name)
    return held, (await session.scalars(mine.order_by(Promotion.id.desc()))).all()


async def pending(session: AsyncSession) -> Sequence[ModelName]:
    """Names that wait for a model to answer, of all projects."""
    waiting = select(ModelName).where(ModelName.pending_id.is_not(None)).order_by(ModelName.project_id, ModelName.name)
    return (await session.scalars(waiting)).all()


async def settle(session: AsyncSession, project_id: str, name: str) -> None:
    """Look at what the name waits for: it becomes current when its model answers, and fails with it."""
    waiting = await session.get(ModelName, (project_id, name), populate_existing=True)
    if waiting is None or waiting.pending_id is None:
        return
    promotion = await _get(session, waiting.pending_id)
    job = await JobRepository(session).get(promotion.job_id, lock=True)  # before the name, as everywhere
    held = await _hold(session, project_id, name)
    if held.pending_id != promotion.id:  # another one came: look again
        return
    deployment = await deployments.find(session, job, promotion.step)
    match deployment.state if deployment is not None else None:
        case DeploymentState.READY:
            await _make_current(session, held, promotion)
        case DeploymentState.DEPLOYING | DeploymentState.SLEEPING:
            return  # one that sleeps has been up: the first request by the name wakes it
        case _:
            reason = (deployment.message if deployment is not None else None) or "Its models were taken down."
            await _end(session, promotion, PromotionState.FAILED, f"It does not answer: {reason}")
            held.pending_id, held.updated_at = None, utc_now()
            await session.flush()
            await _tell(session, promotion, "failed", f"It did not become '{name}': {reason}")


def check_name(name: str) -> None:
    """Raises InvalidRequest for what can be no name."""
    if not is_name(name):
        raise InvalidRequest(
            "A name has 1 to 63 lower-case letters, digits, '.', '_' and '-'; it begins with a letter or digit, and "
            "not as IDs of jobs do.",
            field="name",
        )


async def _hold(session: AsyncSession, project_id: str, name: str, *, make: bool = True) -> ModelName:
    """The name's row, locked until the end of the transaction. make: if it is not there; else NotFound is raised."""
    if make:
        now = utc_now()
        insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
        row = {"project_id": project_id, "name": name, "created_at": now, "updated_at": now}
        await session.execute(insert(ModelName).values(row).on_conflict_do_nothing())
    mine = select(ModelName).where(ModelName.project_id == project_id, ModelName.name == name)
    locked = mine.with_for_update().execution_options(populate_existing=True)
    held = (await session.scalars(locked)).one_or_none() if is_name(name) else None
    if held is None:
        raise NotFound("There is no such name among yours. GET /v1/models lists the models that there are.")
    return held


async def _get(session: AsyncSession, id: str) -> Promotion:
    return await session.get_one(Promotion, id, populate_existing=True)


def _is(promotion: Promotion, job: Job, step: int | None) -> bool:
    return (promotion.job_id, promotion.step) == (job.id, step)


def _one_of(past: Sequence[Promotion], id: str) -> Promotion:
    found = next((one for one in past if one.id == id and one.became_current_at is not None), None)
    if found is None:
        raise NotFound("The name never meant that: GET .../promotions lists what it meant.")
    return found


def _before(past: Sequence[Promotion]) -> Promotion:
    """What the name meant before what it means now; of a rollback, before what that went back to."""
    current = next((one for one in past if one.state is PromotionState.CURRENT), None)
    since = (current.restores or current.id) if current is not None else None
    for one in past:  # newest first
        is_other = current is None or (one.job_id, one.step) != (current.job_id, current.step)
        if one.became_current_at is not None and (since is None or one.id < since) and is_other and not one.restores:
            return one
    raise InvalidState("The name meant nothing else before: there is nothing to go back to.")


async def _make_current(session: AsyncSession, held: ModelName, promotion: Promotion) -> None:
    await _end_current(session, held)
    now = utc_now()
    promotion.state, promotion.became_current_at = PromotionState.CURRENT, now
    held.current_id, held.pending_id, held.updated_at = promotion.id, None, now
    await session.flush()
    await _tell(session, promotion, "current", f"It is '{held.name}' now.")


async def _end_current(session: AsyncSession, held: ModelName) -> None:
    if held.current_id is not None:
        await _end(session, await _get(session, held.current_id), PromotionState.PAST, None)
        held.current_id, held.updated_at = None, utc_now()
        await session.flush()


async def _withdraw_pending(session: AsyncSession, held: ModelName, reason: str) -> None:
    if held.pending_id is not None:
        await _end(session, await _get(session, held.pending_id), PromotionState.WITHDRAWN, reason)
        held.pending_id, held.updated_at = None, utc_now()
        await session.flush()


async def _end(session: AsyncSession, promotion: Promotion, state: PromotionState, message: str | None) -> None:
    promotion.state, promotion.message, promotion.ended_at = state, message, utc_now()
    await session.flush()


async def _tell(session: AsyncSession, promotion: Promotion, what: str, message: str) -> None:
    job = await JobRepository(session).get(promotion.job_id)
    data = {"name": promotion.name, "promotion_id": promotion.id}
    if promotion.step is not None:
        data["step"] = str(promotion.step)
    await append_event(session, job, f"promotion.{what}", message, data=data)
