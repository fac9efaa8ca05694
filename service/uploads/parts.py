"""The bytes of upload parts: on the storage, or in the object store if `settings.files_url` names one, so that every
replica of the API can take and join any part. Parts from before there was an object store are found on the storage.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from service.db.tables import UploadPart
from service.files.bucket import bucket
from service.files.disk import write_whole
from service.settings import Settings
from service.spec import Storage

_FOLDER = "uploads"
_PIECE_BYTES = 2**20


async def write(
    settings: Settings, part: UploadPart, chunks: AsyncIterator[bytes], max_bytes: int, too_large: str
) -> tuple[int, str]:
    """Whole or not at all; returns the number of bytes and their SHA-256. Raises TooLarge, Unavailable, and
    FileNotFoundError if the upload's bytes are removed meanwhile."""
    if settings.files_url is not None:
        return await bucket(settings.files_url).write(_name(part), chunks, max_bytes, too_large)
    return await write_whole(_path(settings, part), chunks, max_bytes, too_large)


async def pieces(settings: Settings, part: UploadPart) -> AsyncGenerator[bytes, None]:
    """Raises FileNotFoundError, Unavailable."""
    try:
        content = await asyncio.to_thread(_path(settings, part).open, "rb")
    except FileNotFoundError:
        if settings.files_url is None:
            raise
        async for piece in bucket(settings.files_url).pieces(_name(part)):
            yield piece
        return
    with content:
        while piece := await asyncio.to_thread(content.read, _PIECE_BYTES):
            yield piece


async def remove(settings: Settings, part: UploadPart) -> None:
    """Idempotent. Raises Unavailable."""
    if settings.files_url is not None:
        await bucket(settings.files_url).delete(_name(part))
    await asyncio.to_thread(_path(settings, part).unlink, missing_ok=True)


async def remove_all(settings: Settings, upload_id: str) -> None:
    """Parts of the upload, on the storage also those that are still coming in. Idempotent. Raises Unavailable."""
    if settings.files_url is not None:
        store = bucket(settings.files_url)
        for name in await store.names(f"{_FOLDER}/{upload_id}/"):
            await store.delete(name)
    await asyncio.to_thread(_unlink_all, settings, upload_id)


async def held(settings: Settings) -> set[str]:
    """IDs of the uploads that have bytes somewhere. Raises Unavailable."""
    directory = Storage(settings.storage_root).uploads
    found = await asyncio.to_thread(lambda: {path.name.partition(".")[0] for path in directory.glob("upload-*")})
    if settings.files_url is not None:
        found |= await bucket(settings.files_url).folders(f"{_FOLDER}/")
    return found


def _unlink_all(settings: Settings, upload_id: str) -> None:
    for path in Storage(settings.storage_root).uploads.glob(f"{upload_id}.*"):
        path.unlink(missing_ok=True)


def _path(settings: Settings, part: UploadPart) -> Path:
    return Storage(settings.storage_root).uploads / f"{part.upload_id}.{part.id}"


def _name(part: UploadPart) -> str:
    return f"{_FOLDER}/{part.upload_id}/{part.id}"
