"""The logs of a job's attempts."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.problems import problems
from api.views import LogView
from service.errors import InvalidRequest, NotFound, Unavailable
from service.jobs.attempt_log import MAX_LINES, read_log

router = APIRouter(prefix="/jobs/{job_id}/logs", tags=["jobs"])


@router.get("", responses=problems(NotFound, InvalidRequest, Unavailable))
async def get_logs(
    job_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    attempt: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="By its number; by default the newest.")
    ] = None,
    tail: Annotated[int, Query(ge=1, le=MAX_LINES, description="How many of the last lines.")] = 500,
) -> LogView:
    """What the attempt's processes wrote: its driver's lines, and those of its workers with the process in front. The
    cluster keeps them while it runs; the last lines of a failed attempt are in the job's `error` too."""
    return LogView.model_validate(await read_log(database, settings, project_id, job_id, attempt=attempt, tail=tail))
