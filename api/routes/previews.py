"""Rows before there is a job on them."""

from fastapi import APIRouter, Request, Response

from api.deps import DatabaseDep, PreviewsDep, ProjectDep
from api.hangup import unless_gone
from api.problems import problems
from service import audit
from service.errors import (
    DatasetInvalid,
    InvalidRequest,
    ModelNotFound,
    ModelUnusable,
    PreviewFailed,
    PreviewUnavailable,
)
from service.previews.request import PreviewRequest
from service.spec.data_preview import DataPreview

router = APIRouter(prefix="/data-previews", tags=["files"])


@router.post(
    "",
    response_model=DataPreview,
    responses=problems(InvalidRequest, DatasetInvalid, ModelNotFound, ModelUnusable, PreviewFailed, PreviewUnavailable),
)
async def preview_data(
    http: Request, request: PreviewRequest, project_id: ProjectDep, database: DatabaseDep, previews: PreviewsDep
) -> DataPreview | Response:
    """The data report of a file that no job has yet, and its first rows as the model will see them, token by token.
    Of a long file only the start is read."""
    audit.reads_only()
    # A form asks anew at each change; looks that nobody waits for any more must not keep others waiting.
    return await unless_gone(http, previews.preview(database, project_id, request)) or Response()
