"""What attempts on the cluster say to us, each with its own token."""

from fastapi import APIRouter

from api.deps import AttemptIdDep, DatabaseDep, SettingsDep
from api.problems import problems
from service.errors import (
    AttemptSuperseded,
    InvalidRequest,
    InvalidState,
    NotFound,
    ReportGap,
    ServiceError,
    TooLarge,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from service.jobs import reports
from service.spec.reports import AttemptBrief, ReportAck, ReportBatch

router = APIRouter(
    prefix="/internal/attempts/{attempt_id}",
    tags=["internal"],
    responses=problems(Unauthorized, InvalidRequest, TooLarge, TooSlow, Unavailable, ServiceError),
)


@router.get("", responses=problems(NotFound, AttemptSuperseded, InvalidState))
async def get_brief(attempt_id: AttemptIdDep, database: DatabaseDep, settings: SettingsDep) -> AttemptBrief:
    """Everything the attempt needs to know."""
    async with database.reading() as session:
        return await reports.brief(session, attempt_id, settings)


@router.post("/reports", responses=problems(NotFound, ReportGap, AttemptSuperseded, InvalidRequest))
async def take_reports(
    attempt_id: AttemptIdDep, batch: ReportBatch, database: DatabaseDep, settings: SettingsDep
) -> ReportAck:
    """Take numbered reports; a batch that is sent again changes nothing, an empty one is a heartbeat."""
    async with database.transaction() as session:
        return await reports.take_batch(session, attempt_id, batch, settings)
