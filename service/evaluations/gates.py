"""The gates of a project: kept, and asked before a promotion."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Text, cast, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.evaluation_tables import Evaluation, Gate
from service.errors import GateNotPassed, NotFound
from service.evaluations.gate import ANY_NAME, NAME_PATTERN, Promoted, Rule, check
from service.evaluations.states import EvaluationState
from service.serving import models


async def all_of(session: AsyncSession, project_id: str) -> Sequence[Gate]:
    return (await session.scalars(select(Gate).where(Gate.project_id == project_id).order_by(Gate.model_name))).all()


async def get(session: AsyncSession, project_id: str, name: str) -> Gate:
    """Raises NotFound."""
    gate = await session.get(Gate, (project_id, name)) if re.fullmatch(NAME_PATTERN, name) else None
    if gate is None:
        raise NotFound("There is no gate for this name among yours. GET /v1/gates lists them.")
    return gate


async def put(session: AsyncSession, project_id: str, name: str, rule: Rule) -> Gate:
    """Make or replace the gate of a name, or of all names without one of their own (`*`)."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"rule": rule.model_dump(mode="json"), "updated_at": utc_now()}
    made = insert(Gate).values(project_id=project_id, model_name=name, **values)
    put = made.on_conflict_do_update(index_elements=["project_id", "model_name"], set_=values)
    gate = (await session.scalars(put.returning(Gate), execution_options={"populate_existing": True})).one()
    await audit.record(session, name)
    return gate


async def delete(session: AsyncSession, project_id: str, name: str) -> None:
    """Raises NotFound."""
    await session.delete(await get(session, project_id, name))
    await audit.record(session, name)


async def require_passed(session: AsyncSession, project_id: str, name: str, job_id: str, step: int | None) -> None:
    """Before the model of the job, or of its checkpoint after `step`, is promoted to a name: the newest evaluation of
    it that is completed must pass the gate of the name, or that of the project if the name has none. Without a gate
    everything may pass.

    For the transaction that promotes. Raises GateNotPassed, which names the rule and the figures.
    """
    # Held to the end of the transaction, so that what is promoted has passed the rule that there is then
    gate = await _held(session, project_id, name) or await _held(session, project_id, ANY_NAME)
    if gate is None:
        return
    model = models.model_name(job_id, step=step)
    found = await _newest_of(session, project_id, model)
    rule = Rule.model_validate(gate.rule)
    asked = rule.model_dump(mode="json", exclude_defaults=True)
    told = f"The gate of '{gate.model_name}' asks for {json.dumps(asked)}"
    if found is None:
        raise GateNotPassed(
            f"{told}, and no evaluation of {model} is completed; one that is voting is when it is closed.",
            rule=asked,
            checks=[],
        )
    evaluation, called = found
    from service.evaluations.results import compute, read  # numpy, for the few who promote

    figures = await asyncio.to_thread(compute, await read(session, evaluation))
    baseline = await _called(session, evaluation, rule.baseline) if rule.baseline is not None else None
    checks = check(rule, figures, Promoted(called, job_id, step, baseline))
    missed = [one for one in checks if not one.passed]
    if missed:
        reasons = "; ".join(f"{one.what} must be {one.required}, and is {one.found}" for one in missed)
        raise GateNotPassed(
            f"{told}; by {evaluation.id} {reasons}.",
            rule=asked,
            checks=[asdict(one) for one in checks],
            evaluation_id=evaluation.id,
        )


async def _called(session: AsyncSession, evaluation: Evaluation, baseline: str) -> str | None:
    """What the evaluation calls a model of ours; None if it has not asked it, or there is none of that name."""
    try:
        named = await models.find(session, evaluation.project_id, baseline)
    except NotFound:
        return None
    own_name = models.model_name(named.job.id, named.side, named.step)
    return next((one["name"] for one in evaluation.spec["models"] if one["model"] == own_name), None)


async def _held(session: AsyncSession, project_id: str, name: str) -> Gate | None:
    return await session.get(Gate, (project_id, name), with_for_update={"read": True})


async def _newest_of(session: AsyncSession, project_id: str, model: str) -> tuple[Evaluation, str] | None:
    """The newest evaluation that has the model, and what it calls it: of those that are completed, since what is voted
    on yet, or has ended otherwise, shows a part only."""
    found = select(Evaluation).where(Evaluation.project_id == project_id, Evaluation.state == EvaluationState.COMPLETED)
    # so that others need not be loaded; where in the request it stands is looked at below
    naming = found.where(cast(Evaluation.spec, Text).contains(json.dumps(model), autoescape=True))
    for evaluation in await session.scalars(naming.order_by(Evaluation.id.desc())):
        for candidate in evaluation.spec["models"]:
            if candidate["model"] == model:
                return evaluation, candidate["name"]
    return None
