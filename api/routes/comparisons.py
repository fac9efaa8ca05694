"""The same question to base and aligned model, side by side."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from api import sse
from api.deps import DatabaseDep, DeploymentUsesDep, ReadProjectDep, ServeClientDep, SettingsDep
from api.problems import problem, problems
from api.views import Answer, Comparison
from service.comparisons import service as comparisons
from service.comparisons.request import ComparisonRequest
from service.comparisons.stream import Broken, Delta, Done, Part, ask_both
from service.deployments.uses import DeploymentUses
from service.errors import InvalidRequest, ModelWaking, NotFound, RateLimited, ServingUnavailable, TooManyStreams
from service.serving.models import Side

router = APIRouter(prefix="/comparisons", tags=["serving"])


@router.post(
    "",
    response_model=Comparison,
    responses=sse.DOCUMENTED
    | problems(NotFound, ServingUnavailable, ModelWaking, InvalidRequest, RateLimited, TooManyStreams),
)
async def compare(
    http: Request,
    request: ComparisonRequest,
    project_id: ReadProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    uses: DeploymentUsesDep,
    client: ServeClientDep,
) -> Comparison | StreamingResponse:
    """Both answers, sampled with the same seed. With `Accept: text/event-stream`: `delta` frames of either side as the
    tokens come, `done` or `error` for each side, and `end`."""
    question = await comparisons.prepare(database, settings, uses, project_id, request)
    answers_come = _during(uses, question.deployment_id, ask_both(client, question))
    if sse.wanted(http):
        return sse.EventStream(_frames(answers_come))
    answers: dict[Side, Answer] = {}
    texts: dict[Side, str] = dict.fromkeys(Side, "")
    async with aclosing(answers_come) as parts:
        async for part in parts:
            match part:
                case Delta(side, text):
                    texts[side] += text
                case Done(side, finish_reason, usage):
                    answers[side] = Answer(text=texts[side], finish_reason=finish_reason, usage=usage)
                case Broken(_, error):
                    raise error
    return Comparison(base=answers[Side.BASE], aligned=answers[Side.ALIGNED], seed=request.seed)


async def _during(
    uses: DeploymentUses, deployment_id: str, answers: AsyncGenerator[Part, None]
) -> AsyncGenerator[Part, None]:
    with uses.during(deployment_id):
        async with aclosing(answers) as parts:
            async for part in parts:
                yield part


async def _frames(answers: AsyncGenerator[Part, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(answers) as parts:
        async for part in parts:
            match part:
                case Delta(side, text):
                    yield _frame("delta", side=side, text=text)
                case Done(side, finish_reason, usage):
                    yield _frame("done", side=side, finish_reason=finish_reason, usage=usage)
                case Broken(side, error):
                    yield _frame("error", side=side, problem=problem(error))
    yield sse.frame("end")


def _frame(event: str, **data: Any) -> bytes:
    return sse.frame(event, json.dumps(data))
