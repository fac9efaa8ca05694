"""Files: upload and list."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.deps import DatabaseDep, OwnerDep, SettingsDep
from api.multipart import FilePart
from api.problems import problems
from api.views import FilePage, FileView
from service.errors import InvalidRequest, NotFound, TooLarge, UploadIncomplete
from service.files import service as files
from service.files.repository import FileRepository

router = APIRouter(prefix="/files", tags=["files"])

_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "JSON Lines, JSON, CSV or Parquet; also compressed.",
        }
    },
}


@router.post(
    "",
    status_code=201,
    responses=problems(UploadIncomplete, TooLarge, InvalidRequest),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def upload_file(request: Request, owner: OwnerDep, database: DatabaseDep, settings: SettingsDep) -> FileView:
    """Upload a dataset. It is streamed to the storage, and is there whole or not at all."""
    part = FilePart(request)
    filename = await part.open()
    return FileView.model_validate(await files.store(database, settings, owner, filename, part.chunks()))


@router.get("", responses=problems(InvalidRequest))
async def list_files(
    owner: OwnerDep,
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> FilePage:
    """Your files, newest first."""
    async with database.reading() as session:
        page, next_cursor = await FileRepository(session).page(owner, limit=limit, cursor=cursor)
    return FilePage(data=[FileView.model_validate(file) for file in page], next_cursor=next_cursor)


@router.get("/{file_id}", responses=problems(NotFound))
async def get_file(file_id: str, owner: OwnerDep, database: DatabaseDep) -> FileView:
    async with database.reading() as session:
        return FileView.model_validate(await FileRepository(session).get_for_owner(file_id, owner))
