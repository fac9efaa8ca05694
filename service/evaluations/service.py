"""What clients do with evaluations: make, look at, close, cancel and delete them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.evaluation_tables import Evaluation, EvaluationItem
from service.db.guarded import guarded_update
from service.db.session import Database
from service.errors import IdempotencyConflict, InvalidRequest, InvalidState, SpecUnreadable
from service.evaluations import metrics, prompts, targets
from service.evaluations.prompts import Item
from service.evaluations.repository import EvaluationRepository
from service.evaluations.request import (
    MAX_ANSWERS,
    MAX_VERDICTS,
    Asked,
    EvaluationRequest,
    HumanJudge,
    ImplicitReward,
    LlmJudge,
    MetricJudge,
)
from service.evaluations.states import TRANSITIONS, EvaluationState
from service.ids import new_id
from service.jobs.service import check_key
from service.settings import Settings
from service.text import first_unstorable


async def create(
    database: Database,
    settings: Settings,
    project_id: str,
    request: EvaluationRequest,
    idempotency_key: str | None = None,
) -> tuple[Evaluation, bool]:
    """Check and queue an evaluation; returns it and whether an earlier request with this key had made it.

    Raises InvalidRequest for what could not be asked or is too much, NotFound for a job or file that is not the
    project's, DatasetInvalid for rows without a prompt, and IdempotencyConflict.
    """
    check_key(idempotency_key)
    body = request.model_dump(mode="json")
    if field := first_unstorable(body):
        raise InvalidRequest(f"'{field}' holds a NUL character, which is not text: remove it.", field=field)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    if idempotency_key and (made := await _replayed(database, project_id, idempotency_key, digest)):
        return made, True
    job_id, own_names = await _check_asked(database, settings, project_id, request)
    items = await prompts.read(database, settings, project_id, request.prompts)
    _check_size(request, len(items))
    evaluation = Evaluation(
        id=new_id("eval"),
        project_id=project_id,
        idempotency_key=idempotency_key,
        body_sha256=digest,
        name=request.name,
        job_id=job_id,
        spec=_without_items(body) | {part: _named(body[part], own_names) for part in ("models", "judges")},
        state=EvaluationState.QUEUED,
        num_items=len(items),
        created_at=utc_now(),
    )
    try:
        async with database.transaction() as session:
            session.add(evaluation)
            await session.flush()
            session.add_all(_rows(evaluation.id, items))
            await audit.record(session, evaluation.id)
    except IntegrityError:  # two requests with one key raced; the other one came through
        if not idempotency_key or not (made := await _replayed(database, project_id, idempotency_key, digest)):
            raise
        return made, True
    return evaluation, False


async def cancel(session: AsyncSession, project_id: str, evaluation_id: str) -> Evaluation:
    """Ask it to stop; what was answered is kept. Asking again is harmless. Raises NotFound, and InvalidState if it has
    ended otherwise."""
    evaluation = await EvaluationRepository(session).get_in_project(evaluation_id, project_id, lock=True)
    if evaluation.state is EvaluationState.CANCELLED:
        return evaluation
    if evaluation.state.terminal:
        raise InvalidState(f"The evaluation is {evaluation.state}: there is nothing to cancel.", state=evaluation.state)
    if evaluation.state is EvaluationState.RUNNING:  # by the controller, which stops what it has under way
        evaluation.cancel_requested_at = evaluation.cancel_requested_at or utc_now()
    else:
        move(evaluation, EvaluationState.CANCELLED)
    await audit.record(session, evaluation.id)
    return evaluation


async def close(session: AsyncSession, project_id: str, evaluation_id: str) -> Evaluation:
    """End the voting. Asking again is harmless. Raises NotFound, and InvalidState unless only votes are missing."""
    evaluation = await EvaluationRepository(session).get_in_project(evaluation_id, project_id, lock=True)
    if evaluation.state is EvaluationState.COMPLETED:
        return evaluation
    if evaluation.state is not EvaluationState.VOTING:
        raise InvalidState(
            f"The evaluation is {evaluation.state}; what can be closed is one that is voting.", state=evaluation.state
        )
    move(evaluation, EvaluationState.COMPLETED)
    await audit.record(session, evaluation.id)
    return evaluation


async def delete(session: AsyncSession, project_id: str, evaluation_id: str) -> None:
    """The evaluation with its answers, verdicts and votes. Raises NotFound, and InvalidState while it has not ended."""
    repository = EvaluationRepository(session)
    evaluation = await repository.get_in_project(evaluation_id, project_id, lock=True)
    if not evaluation.state.terminal:
        raise InvalidState(f"The evaluation is {evaluation.state}: cancel or close it first.", state=evaluation.state)
    await repository.delete(evaluation)
    await audit.record(session, evaluation.id)


def request_of(evaluation: Evaluation) -> EvaluationRequest:
    """What was asked for; its inline prompts are the evaluation's items. Raises SpecUnreadable."""
    try:
        return EvaluationRequest.model_validate(evaluation.spec)
    except ValidationError as error:
        raise SpecUnreadable(
            "The evaluation was accepted by another version of Plumbline, and this one does not take its options: make "
            "it anew."
        ) from error


def move(evaluation: Evaluation, state: EvaluationState) -> None:
    """To the next state, of a row that is locked."""
    assert state in TRANSITIONS[evaluation.state], f"{evaluation.state} -> {state}"
    evaluation.state, evaluation.error = state, None
    if state is EvaluationState.RUNNING:
        evaluation.started_at = utc_now()
    if state.terminal:
        evaluation.finished_at = utc_now()


async def wait(session: AsyncSession, evaluation: Evaluation, reason: str | None) -> None:
    """Say why nothing is done while it runs; None: something is done again. Nothing is written if it has ended."""
    error = None if reason is None else {"code": "waiting", "message": reason}
    await guarded_update(session, evaluation, {"error": error}, Evaluation.state == EvaluationState.RUNNING)


async def fail(session: AsyncSession, evaluation: Evaluation, code: str, message: str) -> None:
    """Nothing is written if it has ended in the meantime."""
    values = {
        "state": EvaluationState.FAILED,
        "error": {"code": code, "message": message},
        "finished_at": utc_now(),
    }
    at_work = Evaluation.state.in_([EvaluationState.QUEUED, EvaluationState.RUNNING])
    await guarded_update(session, evaluation, values, at_work)


def num_verdicts(request: EvaluationRequest, num_items: int) -> int:
    """That LLM judges are to give, both orders counted."""
    return num_items * len(request.pairs) * 2 * len(request.places(LlmJudge))


async def _check_asked(
    database: Database, settings: Settings, project_id: str, request: EvaluationRequest
) -> tuple[str | None, dict[str, str]]:
    """Returns the job that the last of the models comes from, if one does, and the own names of models that are asked
    for: what a promoted name means may change while they answer, and after."""
    job_id: str | None = None
    own_names: dict[str, str] = {}

    async def check(asked: Asked, field: str) -> str | None:
        if asked.endpoint is not None:
            targets.check_endpoint(settings, project_id, asked.endpoint, f"{field}.endpoint")
            return None
        assert asked.model is not None
        made_by, own_names[asked.model] = await targets.resolve(database, project_id, asked.model, f"{field}.model")
        return made_by

    for place, candidate in enumerate(request.models):
        job_id = await check(candidate, f"models.{place}") or job_id
    for place, judge in enumerate(request.judges):
        field = f"judges.{place}"
        match judge:
            case LlmJudge():
                await check(judge, field)
            case MetricJudge(metric=metric):
                metrics.check(metric, f"{field}.metric")
            case ImplicitReward() if job_id is None:
                raise InvalidRequest(
                    "No model of this evaluation comes from a job, which would have measured implicit rewards.",
                    field=field,
                )
            case HumanJudge() | ImplicitReward():
                pass
    return job_id, own_names


def _named(parts: list[dict[str, Any]], own_names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Models or judges of a request, with those that are models of ours by their own names."""
    return [one | {"model": own_names[one["model"]]} if one.get("model") else one for one in parts]


def _check_size(request: EvaluationRequest, num_items: int) -> None:
    answers, verdicts = num_items * len(request.models), num_verdicts(request, num_items)
    for what, count, most in (("answers", answers, MAX_ANSWERS), ("verdicts", verdicts, MAX_VERDICTS)):
        if count > most:
            raise InvalidRequest(
                f"This would take {count} {what}, and {most} are the most: use fewer prompts, models or judges.",
                field="prompts",
            )


def _without_items(body: dict[str, Any]) -> dict[str, Any]:
    """Inline prompts become items; one stays, because a request has to have one."""
    if body["prompts"]["type"] != "inline":
        return body
    return body | {"prompts": body["prompts"] | {"items": [{"prompt": "(see the items)"}]}}


def _rows(evaluation_id: str, items: Sequence[Item]) -> list[EvaluationItem]:
    return [
        EvaluationItem(evaluation_id=evaluation_id, position=position, prompt=item.prompt, category=item.category)
        for position, item in enumerate(items)
    ]


async def _replayed(database: Database, project_id: str, key: str, digest: str) -> Evaluation | None:
    async with database.reading() as session:
        evaluation = await EvaluationRepository(session).by_key(project_id, key)
    if evaluation is not None and evaluation.body_sha256 != digest:
        raise IdempotencyConflict(
            f"This Idempotency-Key made {evaluation.id} from another body: use a new key for a new evaluation.",
            evaluation_id=evaluation.id,
        )
    return evaluation
