"""Files: upload, list, read back and delete. OpenAI's package speaks to these routes too."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.multipart import PURPOSE, FilePart
from api.openai.calls import SentDep
from api.openai.errors import is_package
from api.problems import problems
from api.views import FileDeleted, FilePage, FileView
from service.errors import InvalidRequest, InvalidState, NotFound, TooLarge, UploadIncomplete
from service.files import service as files
from service.files.repository import FileRepository

router = APIRouter(prefix="/files", tags=["files"])

MAX_PAGE = 10_000
_PIECE_BYTES = 2**20
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "JSON Lines, JSON, CSV or Parquet; also compressed.",
        },
        "purpose": {"const": PURPOSE, "description": "As OpenAI's package sends it; there is no other."},
    },
}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


async def _by_package(request: Request) -> bool:
    return is_package(request)


ByPackage = Annotated[bool, Depends(_by_package)]


@router.post(
    "",
    status_code=201,
    responses=problems(UploadIncomplete, TooLarge, InvalidRequest),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def upload_file(
    request: Request,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    by_package: ByPackage,
    sent: SentDep,
    response: Response,
) -> FileView:
    """Upload a dataset. It is streamed to the storage, and is there whole or not at all. A request that OpenAI's
    package repeats gets the file that the first one made, with the header `Idempotent-Replayed: true`."""
    part = FilePart(request)
    filename = await part.open()
    file, replayed = await files.store_once(database, settings, project_id, filename, part.chunks(), sent)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return FileView.of(file, in_seconds=by_package)


@router.get("", responses=problems(InvalidRequest))
async def list_files(
    project_id: ProjectDep,
    database: DatabaseDep,
    by_package: ByPackage,
    limit: Annotated[int | None, Query(ge=1, le=MAX_PAGE, description="Default: 20; for OpenAI's package all.")] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    after: Annotated[str | None, Query(description="The same, by the name that OpenAI's package gives it.")] = None,
    sha256: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="Only files whose bytes have this SHA-256.")
    ] = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[
        str | None, Query(description=f"All files are for '{PURPOSE}'; for others there are none.")
    ] = None,
) -> FilePage:
    """Your files, newest first."""
    if cursor is not None and after is not None and cursor != after:
        raise InvalidRequest("`cursor` and `after` are two names of one thing: give one of them.", field="after")
    if purpose not in (None, PURPOSE):
        return FilePage(data=[], next_cursor=None, first_id=None, last_id=None, has_more=False)
    async with database.reading() as session:
        page, next_cursor = await FileRepository(session).page(
            project_id,
            limit=limit or (MAX_PAGE if by_package else 20),
            cursor=cursor or after,
            sha256=sha256,
            oldest_first=order == "asc",
        )
    return FilePage(
        data=[FileView.of(file, in_seconds=by_package) for file in page],
        next_cursor=next_cursor,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=next_cursor is not None,
    )


@router.get("/{file_id}", responses=problems(NotFound))
async def get_file(file_id: str, project_id: ProjectDep, database: DatabaseDep, by_package: ByPackage) -> FileView:
    async with database.reading() as session:
        file = await FileRepository(session).get_in_project(file_id, project_id)
    return FileView.of(file, in_seconds=by_package)


@router.get("/{file_id}/content", response_class=StreamingResponse, responses=_BYTES | problems(NotFound))
async def get_content(
    file_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> StreamingResponse:
    """The bytes, as they were uploaded."""
    file, content = await files.open_content(database, settings, project_id, file_id)
    headers = {
        "Content-Length": str(file.bytes),
        "Content-Disposition": f"attachment; filename*=utf-8''{quote(file.filename, safe='')}",
    }
    return StreamingResponse(_pieces(content), media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}", responses=problems(NotFound, InvalidState))
async def delete_file(
    file_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> FileDeleted:
    """Delete the file and its bytes; refused while a job that has not ended needs them."""
    await files.delete(database, settings, project_id, file_id)
    return FileDeleted(id=file_id)


async def _pieces(content: BinaryIO) -> AsyncIterator[bytes]:
    with content:
        while piece := await run_in_threadpool(content.read, _PIECE_BYTES):
            yield piece
