"""Sweeps: make jobs together, compare them, cancel them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import DatabaseDep, IdempotencyKeyDep, ProjectDep, SettingsDep
from api.problems import problems
from api.routes.jobs import SUBMITTED
from api.views import View
from service.db import tables
from service.errors import (
    DatasetInvalid,
    IdempotencyConflict,
    InvalidRequest,
    ModelNotFound,
    ModelUnusable,
    NotFound,
    TooLarge,
    UnknownLoss,
)
from service.jobs.states import JobState
from service.sweeps import service as sweeps
from service.sweeps.members import SweepRequest

router = APIRouter(prefix="/sweeps", tags=["sweeps"])

Metric = Annotated[
    str,
    Query(
        pattern=r"^(train|held_out)\.[a-z0-9_@./-]{1,100}$",
        description="What `best` goes by: a split and a metric of it.",
        examples=["held_out.accuracy"],
    ),
]
Goal = Annotated[Literal["min", "max"], Query(description="Whether the lowest or the highest value is the best.")]


class SweepMember(View):
    job_id: str
    name: str | None
    changes: dict[str, Any] = Field(description="As the request has them: values by path, or a merge patch.")
    state: JobState
    metrics: dict[str, dict[str, float | None]] = Field(description="What was measured last, by split.")
    value: float | None = Field(description="Of the metric that is compared; null where there is none.")


class SweepView(View):
    id: str = Field(examples=["sweep-019316f0a6b2f3c1d4e5a"])
    object: Literal["sweep"] = "sweep"
    name: str | None
    created_at: datetime
    done: bool = Field(description="Whether every job has ended.")
    states: dict[JobState, int] = Field(description="How many jobs are in each state.")
    metric: str
    goal: Literal["min", "max"]
    best: str | None = Field(description="The job that has succeeded with the best value; the first of equals.")
    jobs: list[SweepMember]


class SweepSummary(View):
    id: str
    object: Literal["sweep"] = "sweep"
    name: str | None
    created_at: datetime


class SweepPage(View):
    data: list[SweepSummary]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


@router.post(
    "",
    status_code=201,
    responses=SUBMITTED
    | problems(
        IdempotencyConflict, TooLarge, InvalidRequest, UnknownLoss, ModelNotFound, ModelUnusable, DatasetInvalid
    ),
)
async def create_sweep(
    request: SweepRequest,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    response: Response,
    idempotency_key: IdempotencyKeyDep,
) -> SweepView:
    """Queue a job for each combination of a grid, or for each change: all of them, or none if one is refused. Jobs
    whose reference pass is the same work wait until the first of them has scored, and find its scores in the store."""
    sweep, replayed = await sweeps.create(database, settings, project_id, request, idempotency_key)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    async with database.reading() as session:
        return await _view(session, sweep, "held_out.loss", "min")


@router.get("", responses=problems(InvalidRequest))
async def list_sweeps(
    project_id: ProjectDep,
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> SweepPage:
    """Your sweeps, newest first."""
    async with database.reading() as session:
        page, next_cursor = await sweeps.page(session, project_id, limit=limit, cursor=cursor)
    return SweepPage(data=[SweepSummary.model_validate(one) for one in page], next_cursor=next_cursor)


@router.get("/{sweep_id}", responses=problems(NotFound, InvalidRequest))
async def get_sweep(
    sweep_id: str, project_id: ProjectDep, database: DatabaseDep, metric: Metric = "held_out.loss", goal: Goal = "min"
) -> SweepView:
    """The jobs of a sweep side by side."""
    async with database.reading() as session:
        return await _view(session, await sweeps.get(session, project_id, sweep_id), metric, goal)


@router.post("/{sweep_id}/cancel", status_code=202, responses=problems(NotFound))
async def cancel_sweep(sweep_id: str, project_id: ProjectDep, database: DatabaseDep) -> SweepView:
    """Ask every job of the sweep that has not ended to stop. Asking again is harmless."""
    sweep = await sweeps.cancel(database, project_id, sweep_id)
    async with database.reading() as session:
        return await _view(session, sweep, "held_out.loss", "min")


async def _view(session: AsyncSession, sweep: tables.Sweep, metric: str, goal: Literal["min", "max"]) -> SweepView:
    split, _, name = metric.partition(".")
    members = [
        SweepMember(
            job_id=one.job.id,
            name=one.job.spec["name"],
            changes=one.changes,
            state=one.job.state,
            metrics=dict(one.metrics),
            value=next((values.get(name) for at, values in one.metrics.items() if at == split), None),
        )
        for one in await sweeps.members_of(session, sweep)
    ]
    ranked = [one for one in members if one.state is JobState.SUCCEEDED and one.value is not None]
    sign = 1 if goal == "min" else -1
    best = min(ranked, key=lambda one: sign * (one.value or 0.0), default=None)
    states = [one.state for one in members]
    return SweepView(
        id=sweep.id,
        name=sweep.name,
        created_at=sweep.created_at,
        done=all(state.terminal for state in states),
        states={state: states.count(state) for state in dict.fromkeys(states)},
        metric=metric,
        goal=goal,
        best=best.job_id if best else None,
        jobs=members,
    )
