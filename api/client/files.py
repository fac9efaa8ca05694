"""Uploaded files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from api.client.call import Call, Operation, Resource, SenderT, given
from api.views import FileDeleted, FilePage, FileView
from service.spec.data_preview import DataPreview


def _upload(path: Path | str) -> Call[FileView]:
    """Upload a dataset; it is streamed, and is there whole or not at all."""
    return Call("POST", "/v1/files", FileView, files={"file": Path(path)})


def _get(file_id: str) -> Call[FileView]:
    return Call("GET", f"/v1/files/{file_id}", FileView, repeatable=True)


def _list(
    *,
    limit: int = 20,
    cursor: str | None = None,
    sha256: str | None = None,
    order: Literal["asc", "desc"] | None = None,
) -> Call[FilePage]:
    """One page, newest first. cursor: `next_cursor` of the page before. sha256: only files of these bytes. order: `asc`
    for the oldest first."""
    params = given(limit=limit, cursor=cursor, sha256=sha256, order=order)
    return Call("GET", "/v1/files", FilePage, params=params, repeatable=True)


def _content(file_id: str) -> Call[bytes]:
    """The bytes as they were uploaded, held in memory."""
    return Call("GET", f"/v1/files/{file_id}/content", bytes, repeatable=True)


def _delete(file_id: str) -> Call[FileDeleted]:
    """Refused while a job that has not ended needs the file."""
    return Call("DELETE", f"/v1/files/{file_id}", FileDeleted)


def _preview(
    data: Mapping[str, Any], *, model: str | None = None, losses: Sequence[Mapping[str, Any]] | None = None
) -> Call[DataPreview]:
    """The data report of a file that no job has yet, and its first rows as tokens. data, losses: as in a job. model:
    whose tokenizer to use; without one lengths are characters."""
    asked = given(data=dict(data), model=model, losses=[dict(loss) for loss in losses] if losses else None)
    return Call("POST", "/v1/data-previews", DataPreview, json=asked, repeatable=True)


class Files(Resource[SenderT]):
    upload = Operation(_upload)
    get = Operation(_get)
    list = Operation(_list)
    content = Operation(_content)
    delete = Operation(_delete)
    preview = Operation(_preview)
