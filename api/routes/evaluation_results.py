"""What an evaluation shows, and what is made of it: results, replays, preference pairs."""

from typing import Annotated, Any, Literal

import httpx
from fastapi import APIRouter, Response
from pydantic import Field

from api.deps import DatabaseDep, DeploymentUsesDep, IdempotencyKeyDep, ProjectDep, SettingsDep
from api.problems import problems
from api.routes.jobs import SUBMITTED
from api.views import View
from service.errors import (
    DatasetInvalid,
    IdempotencyConflict,
    InvalidRequest,
    InvalidState,
    ModelNotDeployed,
    ModelNotFound,
    ModelUnusable,
    NotFound,
    QuotaExceeded,
    ServingUnavailable,
    UnknownLoss,
)
from service.evaluations import pairs
from service.evaluations.figures import Results
from service.evaluations.replay import replay
from service.evaluations.repository import EvaluationRepository
from service.spec.base import SpecModel

router = APIRouter(prefix="/evaluations/{evaluation_id}", tags=["evaluations"])


class ReplayRequest(SpecModel):
    position: int = Field(ge=0, le=2**31 - 1, description="Of the prompt.")
    model: int = Field(ge=0, le=7, description="Of the model, by its place in the request.")


class ReplayView(View):
    same: bool
    stored: str
    now: str
    first_difference: int | None = Field(description="The first character at which the texts differ.")
    changed: list[str] = Field(description="What is not as it was when the answer was stored.")


class PairsRequest(SpecModel):
    judges: list[Annotated[str, Field(max_length=100)]] | None = Field(
        None, min_length=1, max_length=8, description="Whose verdicts decide; by default all judges who compare."
    )
    min_share: float = Field(
        0.5, ge=0.5, le=1, description="Least share of the verdicts on two answers that the better one must have."
    )
    next_job: dict[str, Any] | None = Field(
        None,
        description="Submit a job on these pairs: a JSON Merge Patch (RFC 7396) on the specification of the "
        "evaluation's job, `{}` to change nothing but the training file.",
        examples=[{"model": "job:job-019316f0a6b2f3c1d4e5a"}],
    )


class PairsView(View):
    object: Literal["evaluation.pairs"] = "evaluation.pairs"
    file_id: str
    pairs: int
    left_out: dict[str, int] = Field(description="Comparisons that make no pair: tie, undecided, empty, equal.")
    job_id: str | None = Field(description="The job that was submitted on them.")


@router.get("/results", responses=problems(NotFound))
async def get_results(evaluation_id: str, project_id: ProjectDep, database: DatabaseDep) -> Results:
    """Win rates with intervals, tests, agreement and ranking, of all that there is up to now."""
    from service.evaluations.results import results  # loads numpy, which nothing else of the API needs

    async with database.reading() as session:
        evaluation = await EvaluationRepository(session).get_in_project(evaluation_id, project_id)
    return await results(database, evaluation)


@router.post(
    "/replay", responses=problems(NotFound, InvalidRequest, InvalidState, ModelNotDeployed, ServingUnavailable)
)
async def replay_answer(
    evaluation_id: str,
    request: ReplayRequest,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    uses: DeploymentUsesDep,
) -> ReplayView:
    """Ask a model once more what it was asked, with the same sampling and seed, and compare the texts."""
    place = request.position, request.model
    async with httpx.AsyncClient(trust_env=False) as client:
        found = await replay(database, settings, uses, client, project_id, evaluation_id, *place)
    return ReplayView(
        same=found.first_difference is None,
        stored=found.stored,
        now=found.now,
        first_difference=found.first_difference,
        changed=found.changed,
    )


@router.post(
    "/pairs",
    status_code=201,
    responses=SUBMITTED
    | problems(
        NotFound,
        IdempotencyConflict,
        InvalidRequest,
        InvalidState,
        QuotaExceeded,
        UnknownLoss,
        ModelNotFound,
        ModelUnusable,
        DatasetInvalid,
    ),
)
async def export_pairs(
    evaluation_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    response: Response,
    idempotency_key: IdempotencyKeyDep,
    request: PairsRequest | None = None,
) -> PairsView:
    """Make a training file of the answers that won and lost; with `next_job`, also a job on it. The same pairs once
    more are the same file, and with the same key the same job."""
    asked = request or PairsRequest()
    made = await pairs.export(
        database,
        settings,
        project_id,
        evaluation_id,
        judges=asked.judges,
        min_share=asked.min_share,
        next_job=asked.next_job,
        idempotency_key=idempotency_key,
    )
    if made.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    job_id = made.job.id if made.job else None
    return PairsView(file_id=made.file.id, pairs=made.num_pairs, left_out=made.left_out, job_id=job_id)
