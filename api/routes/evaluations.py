"""Evaluations: models answer the same prompts, and people, models and metrics judge the answers."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import StreamingResponse

from api import sse
from api.deps import DatabaseDep, IdempotencyKeyDep, LeavingDep, ProjectDep, SettingsDep
from api.evaluation_stream import EvaluationSource
from api.evaluation_views import (
    AnswerView,
    EvaluationPage,
    EvaluationProgress,
    EvaluationView,
    EvaluationWithProgress,
    ItemPage,
    ItemView,
    JudgePromptList,
    JudgePromptView,
    MetricList,
    ScoreView,
    VerdictView,
)
from api.problems import problems
from service.db.evaluation_tables import Evaluation, EvaluationItem
from service.errors import (
    DatasetInvalid,
    IdempotencyConflict,
    InvalidRequest,
    InvalidState,
    NotFound,
    RateLimited,
    SpecUnreadable,
    TooManyStreams,
)
from service.evaluations import metrics
from service.evaluations import service as evaluations
from service.evaluations.judge_prompt import PROMPTS
from service.evaluations.repository import EvaluationRepository
from service.evaluations.request import EvaluationRequest, MetricJudge
from service.evaluations.service import num_verdicts, request_of

router = APIRouter(prefix="/evaluations", tags=["evaluations"])


@router.post(
    "",
    status_code=201,
    responses=problems(NotFound, IdempotencyConflict, InvalidRequest, DatasetInvalid),
)
async def create_evaluation(
    request: EvaluationRequest,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    response: Response,
    idempotency_key: IdempotencyKeyDep,
) -> EvaluationWithProgress:
    """Have models answer prompts and judges compare the answers."""
    made, replayed = await evaluations.create(database, settings, project_id, request, idempotency_key)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    async with database.reading() as session:
        return await with_progress(session, made)


@router.get("", responses=problems(InvalidRequest))
async def list_evaluations(
    project_id: ProjectDep,
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    job_id: Annotated[str | None, Query(max_length=100, description="Only those about this job's model.")] = None,
) -> EvaluationPage:
    """Your evaluations, newest first."""
    async with database.reading() as session:
        page, next_cursor = await EvaluationRepository(session).page(
            project_id, limit=limit, cursor=cursor, job_id=job_id
        )
    return EvaluationPage(data=[EvaluationView.of(one) for one in page], next_cursor=next_cursor)


@router.get("/judge-prompts")
async def list_judge_prompts(_project_id: ProjectDep) -> JudgePromptList:
    """The prompts that an LLM judge can be given by name; none ever changes under its name."""
    return JudgePromptList(data=[JudgePromptView(name=name, text=text) for name, text in PROMPTS.items()])


@router.get("/metrics")
async def list_metrics(_project_id: ProjectDep) -> MetricList:
    """The metrics that a judge can name: what installed packages offer."""
    return MetricList(data=metrics.names())


@router.get(
    "/{evaluation_id}",
    response_model=EvaluationWithProgress,
    responses=sse.DOCUMENTED | problems(NotFound, SpecUnreadable, RateLimited, TooManyStreams),
)
async def get_evaluation(
    evaluation_id: str,
    http: Request,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    leaving: LeavingDep,
) -> EvaluationWithProgress | StreamingResponse:
    """With `Accept: text/event-stream`: an `evaluation` frame now and whenever it changes, a vote included, `end` when
    nothing can change any more, or `reconnect` when the stream has lived long enough or its server is about to
    end."""
    async with database.reading() as session:
        found = await EvaluationRepository(session).get_in_project(evaluation_id, project_id)
        if not sse.wanted(http):
            return await with_progress(session, found)
    following = _following(database, found)
    return sse.FollowingStream(sse.follow(following, lifetime_s=settings.stream_lifetime_s, leaving=leaving))


@router.get("/{evaluation_id}/items", responses=problems(NotFound, InvalidRequest))
async def list_items(
    evaluation_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    after: Annotated[int, Query(ge=-1, le=sse.MAX_NUMBER, description="Only those with a higher position.")] = -1,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ItemPage:
    """The prompts with all that was said of them, which tells whose answer is whose: vote first."""
    async with database.reading() as session:
        repository = EvaluationRepository(session)
        evaluation = await repository.get_in_project(evaluation_id, project_id)
        items = await repository.item_page(evaluation.id, after=after, limit=limit + 1)
        data = await _item_views(repository, evaluation, items[:limit])
    return ItemPage(data=data, next_after=items[limit - 1].position if len(items) > limit else None)


@router.post("/{evaluation_id}/cancel", status_code=202, responses=problems(NotFound, InvalidState))
async def cancel_evaluation(evaluation_id: str, project_id: ProjectDep, database: DatabaseDep) -> EvaluationView:
    """Ask it to stop. What there is by then is kept."""
    async with database.transaction() as session:
        return EvaluationView.of(await evaluations.cancel(session, project_id, evaluation_id))


@router.post("/{evaluation_id}/close", responses=problems(NotFound, InvalidState))
async def close_evaluation(evaluation_id: str, project_id: ProjectDep, database: DatabaseDep) -> EvaluationView:
    """End the voting; results stay as they are then."""
    async with database.transaction() as session:
        return EvaluationView.of(await evaluations.close(session, project_id, evaluation_id))


@router.delete("/{evaluation_id}", status_code=204, responses=problems(NotFound, InvalidState))
async def delete_evaluation(evaluation_id: str, project_id: ProjectDep, database: DatabaseDep) -> None:
    """Delete an ended evaluation with its answers, verdicts and votes."""
    async with database.transaction() as session:
        await evaluations.delete(session, project_id, evaluation_id)


async def with_progress(session: AsyncSession, evaluation: Evaluation) -> EvaluationWithProgress:
    counts = await EvaluationRepository(session).counts(evaluation.id)
    return progress_view(evaluation, counts)


def progress_view(evaluation: Evaluation, counts: Mapping[str, int]) -> EvaluationWithProgress:
    request = request_of(evaluation)
    answers = evaluation.num_items * len(request.models)
    progress = EvaluationProgress(
        **counts,
        answers_total=answers,
        verdicts_total=num_verdicts(request, evaluation.num_items),
        scores_total=answers * len(request.places(MetricJudge)),
    )
    return EvaluationWithProgress.made(evaluation, request, progress)


@contextmanager
def _following(database: DatabaseDep, evaluation: Evaluation) -> Iterator[EvaluationSource]:
    def shown(row: Evaluation, counts: Mapping[str, int]) -> str:
        return json.dumps(progress_view(row, counts).model_dump(mode="json"))

    yield EvaluationSource(database, evaluation.id, shown)


async def _item_views(repository: EvaluationRepository, evaluation: Evaluation, items: Any) -> list[ItemView]:
    positions = [item.position for item in items]
    answers = await repository.answers(evaluation.id, positions)
    verdicts = await repository.verdicts(evaluation.id, positions)
    scores = await repository.scores(evaluation.id, positions)

    def view(item: EvaluationItem) -> ItemView:
        return ItemView(
            position=item.position,
            prompt=item.prompt,
            category=item.category,
            answers=[AnswerView.model_validate(one) for one in answers if one.position == item.position],
            verdicts=[VerdictView.model_validate(one) for one in verdicts if one.position == item.position],
            scores=[ScoreView.model_validate(one) for one in scores if one.position == item.position],
        )

    return [view(item) for item in items]
