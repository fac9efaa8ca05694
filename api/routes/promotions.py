"""Stable names of models: promoted to, gone back from, and their history. /v1/models itself is OpenAI's."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from api.deps import DatabaseDep, ProjectDep
from api.problems import problems
from api.serving_views import PromotionHistory, PromotionView
from service.db.serving_tables import Promotion
from service.errors import GateNotPassed, InvalidRequest, InvalidState, NotFound
from service.promotions import service as promotions
from service.spec.base import SpecModel

router = APIRouter(prefix="/models/{name}", tags=["serving"])

Name = Annotated[str, Path(description="1 to 63 lower-case letters, digits, '.', '_' and '-'.", examples=["support"])]


class PromotionRequest(SpecModel):
    job: str = Field(max_length=40, description="ID of the job.", examples=["job-019316f0a6b2f3c1d4e5a"])
    step: int | None = Field(
        None, ge=1, le=999_999_999, description="Of an exported checkpoint; by default what the job published."
    )


class RollbackRequest(SpecModel):
    to: str | None = Field(None, max_length=40, description="ID of a promotion; by default the one before.")


@router.post("/promote", status_code=202, responses=problems(NotFound, InvalidRequest, InvalidState, GateNotPassed))
async def promote_model(
    name: Name, request: PromotionRequest, project_id: ProjectDep, database: DatabaseDep
) -> PromotionView:
    """Let the name mean this model as soon as it answers; it is deployed for that. Until then the name means what it
    meant before. The model must pass the name's gate, if it has one. Asking again is harmless."""
    return PromotionView.of(await promotions.request(database, project_id, name, request.job, request.step))


@router.post("/rollback", status_code=202, responses=problems(NotFound, InvalidState, GateNotPassed))
async def rollback_model(
    name: Name, project_id: ProjectDep, database: DatabaseDep, request: RollbackRequest | None = None
) -> PromotionView:
    """Let the name mean what it meant before, as soon as that answers; again, and it goes one further back. The model
    must pass the gate that the name has now, if it has one."""
    async with database.transaction() as session:
        return PromotionView.of(await promotions.rollback(session, project_id, name, request.to if request else None))


@router.get("/promotions", responses=problems(NotFound))
async def list_promotions(name: Name, project_id: ProjectDep, database: DatabaseDep) -> PromotionHistory:
    """What the name means, and all that it meant."""
    async with database.reading() as session:
        held, past = await promotions.history(session, project_id, name)
    return PromotionHistory(
        name=held.name,
        current=_one(past, held.current_id),
        pending=_one(past, held.pending_id),
        data=[PromotionView.of(one) for one in past],
    )


def _one(past: Sequence[Promotion], id: str | None) -> PromotionView | None:
    return next((PromotionView.of(one) for one in past if one.id == id), None)
