"""`/v1/uploads`, as OpenAI's package calls it: big files, in parts."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.multipart import PURPOSE, FilePart
from api.openai.calls import SentDep
from api.openai.errors import errors
from api.openai.objects import seconds
from api.views import FileView
from service.clock import utc_now
from service.db.tables import File, Upload
from service.errors import (
    InvalidRequest,
    InvalidState,
    NotFound,
    QuotaExceeded,
    TooLarge,
    Unavailable,
    UploadIncomplete,
)
from service.spec.base import SpecModel
from service.uploads import service as uploads
from service.uploads.repository import UploadStatus, status_of

router = APIRouter(prefix="/uploads", tags=["OpenAI"])

_PART_FORM = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary", "description": "At most 64 MiB."}},
}


class UploadRequest(SpecModel):
    bytes: int = Field(ge=1, strict=True, description="Of the whole file.")
    filename: str = Field(min_length=1, max_length=4000)
    mime_type: str = Field(max_length=255, description="Not used: what a file is, is told by its content.")
    purpose: Literal["fine-tune"] = Field(description=f"As for /v1/files; there is none but '{PURPOSE}'.")


class CompleteRequest(SpecModel):
    part_ids: list[Annotated[str, Field(max_length=100)]] = Field(
        min_length=1, description="In the order of the file. A part may stand in it more than once."
    )
    md5: str | None = Field(None, pattern="^[0-9a-fA-F]{32}$", description="Of the whole file, to be checked.")


class UploadObject(BaseModel):
    id: str = Field(examples=["upload-019316f0a6b2f3c1d4e5a"])
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    status: UploadStatus
    file: FileView | None = Field(description="What a completed upload became; null once that file is deleted.")


class UploadPartObject(BaseModel):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    sha256: str


@router.post("", responses=errors(InvalidRequest, InvalidState, TooLarge, QuotaExceeded))
async def create_upload(
    request: UploadRequest,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    sent: SentDep,
    response: Response,
) -> UploadObject:
    """Begin an upload. It takes parts until it is completed, cancelled or expires. A request that the package repeats
    gets the upload that the first one began, with the header `Idempotent-Replayed: true`."""
    upload, replayed = await uploads.create(database, settings, project_id, request.filename, request.bytes, sent)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return _object(upload, None, utc_now())


@router.post(
    "/{upload_id}/parts",
    responses=errors(NotFound, InvalidState, InvalidRequest, TooLarge, UploadIncomplete, QuotaExceeded, Unavailable),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _PART_FORM}}}},
)
async def add_part(
    request: Request, upload_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> UploadPartObject:
    """Add a part; several may be sent at once. The same bytes again are the same part, so sending one anew is safe."""
    upload = await uploads.get(database, project_id, upload_id)
    form = FilePart(request, "data")
    await form.open()
    part = await uploads.add_part(database, settings, project_id, upload, form.chunks())
    return UploadPartObject(
        id=part.id,
        created_at=seconds(part.created_at),
        upload_id=part.upload_id,
        bytes=part.bytes,
        sha256=part.sha256,
    )


@router.post(
    "/{upload_id}/complete", responses=errors(NotFound, InvalidState, InvalidRequest, QuotaExceeded, Unavailable)
)
async def complete_upload(
    upload_id: str, request: CompleteRequest, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> UploadObject:
    """Put the parts together into a file of /v1/files, which is there whole or not at all."""
    upload, file = await uploads.complete(database, settings, project_id, upload_id, request.part_ids, request.md5)
    return _object(upload, file, utc_now())


@router.post("/{upload_id}/cancel", responses=errors(NotFound, InvalidState, Unavailable))
async def cancel_upload(
    upload_id: str, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> UploadObject:
    """End an upload and remove its parts."""
    upload = await uploads.cancel(database, settings, project_id, upload_id)
    return _object(upload, None, utc_now())


def _object(upload: Upload, file: File | None, now: datetime) -> UploadObject:
    return UploadObject(
        id=upload.id,
        bytes=upload.bytes,
        created_at=seconds(upload.created_at),
        expires_at=seconds(upload.expires_at),
        filename=upload.filename,
        status=status_of(upload, now),
        file=FileView.of(file, in_seconds=True) if file else None,
    )
