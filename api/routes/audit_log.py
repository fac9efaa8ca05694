"""The audit log: who did what in a project."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.deps import AdministeredDep, DatabaseDep
from api.problems import problems
from service import audit
from service.errors import Forbidden, InvalidRequest, NotFound
from service.projects import service as projects

router = APIRouter(prefix="/audit", tags=["projects"])


class AuditView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    object: Literal["audit_entry"] = "audit_entry"
    key_id: str | None = Field(description="null: a command at the database.")
    user_id: str | None
    action: str = Field(examples=["POST /v1/jobs/{job_id}/cancel"])
    target: str | None = Field(description="ID of what was made, changed or asked for.")
    outcome: str = Field(description="`ok`, or the `code` of the problem.")
    request_id: str | None
    created_at: datetime


class AuditPage(BaseModel):
    data: list[AuditView]
    next_cursor: str | None


@router.get("", responses=problems(Forbidden, NotFound, InvalidRequest))
async def list_audit(
    project_id: AdministeredDep,
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> AuditPage:
    """For admins: requests and commands that changed something, or tried to; newest first."""
    async with database.reading() as session:
        await projects.get(session, project_id)
        page, next_cursor = await audit.page(session, project_id, limit=limit, cursor=cursor)
    return AuditPage(data=[AuditView.model_validate(entry) for entry in page], next_cursor=next_cursor)
