"""Uploads and models in an object store: s3://bucket/prefix of `settings.files_url` or `settings.models_url`.

Credentials, region and endpoint are those of the environment (AWS_*). An object is there whole or not at all: it is
sent in parts, which S3 puts together when the last one has arrived.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from service.errors import TooLarge, Unavailable

_PART_BYTES = 5 * 2**20  # S3's least, of which it takes 10,000; an upload holds a few of them in memory
_READ_BYTES = 2**20
_PUT_AT_ONCE = 4  # parts of a file on the storage that are sent at one time, 50 MiB each or more

Answer = TypeVar("Answer")


class Bucket:
    """Raises ValueError without s3fs. Methods raise Unavailable if the store does not answer or does not let us."""

    def __init__(self, url: str) -> None:
        try:
            import s3fs
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise ValueError("s3:// addresses need s3fs: pip install 'plumbline[s3]'") from error
        self._store: Any = s3fs.S3FileSystem(use_listings_cache=False)
        self._troubles: tuple[type[Exception], ...] = (OSError, BotoCoreError, ClientError)
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    async def write(self, name: str, chunks: AsyncIterator[bytes], max_bytes: int, too_large: str) -> tuple[int, str]:
        """Make the object of the chunks; memory used does not grow with them.

        Returns their number of bytes and SHA-256. If `chunks` raises, nothing is left; what a crash leaves, nobody sees
        and `abort_stale` removes. Raises TooLarge, with the text `too_large`, past `max_bytes`.
        """
        out = await self._ask(self._store.open, self._path(name), "wb", block_size=_PART_BYTES, autocommit=False)
        digest, size, buffer = hashlib.sha256(), 0, bytearray()
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise TooLarge(too_large)
                buffer += chunk
                if len(buffer) >= _PART_BYTES:
                    digest.update(buffer)
                    await self._ask(out.write, bytes(buffer))
                    buffer.clear()
            digest.update(buffer)
            await self._ask(out.write, bytes(buffer))
            await self._ask(out.close)
            await self._ask(out.commit)
        except BaseException:  # also a request that is torn down (CancelledError)
            out.closed = True  # or it would send the rest when it is collected
            await self._ask(out.discard)
            raise
        return size, digest.hexdigest()

    async def open(self, name: str) -> BinaryIO:
        """Raises FileNotFoundError."""
        content: BinaryIO = await self._ask(self._store.open, self._path(name), "rb", block_size=_READ_BYTES)
        return content

    async def pieces(self, name: str) -> AsyncIterator[bytes]:
        """The object's bytes; memory used does not grow with them. Raises FileNotFoundError."""
        content = await self._ask(self._store.open, self._path(name), "rb", block_size=_PART_BYTES)
        with content:
            while piece := await self._ask(content.read, _PART_BYTES):
                yield piece

    async def put(self, source: Path, name: str) -> None:
        """Make the object of a file. Raises FileNotFoundError if that is not there."""
        await self._ask(self._store.put_file, str(source), self._path(name), max_concurrency=_PUT_AT_ONCE)

    async def put_bytes(self, content: bytes, name: str) -> None:
        await self._ask(self._store.pipe_file, self._path(name), content)

    async def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        content: bytes = await self._ask(self._store.cat_file, self._path(name))
        return content

    async def fetch(self, name: str, target: Path) -> None:
        """Copy the object to `target`. Raises FileNotFoundError."""
        await self._ask(self._store.get_file, self._path(name), str(target))

    async def delete(self, name: str) -> None:
        """Idempotent."""
        # not `rm_file`, which looks first: S3 itself takes the deletion of what is not there for done
        await self._ask(self._store.call_s3, "delete_object", Bucket=self._bucket, Key=f"{self._prefix}{name}")

    async def exists(self, name: str) -> bool:
        try:
            await self._ask(self._store.info, self._path(name))
        except FileNotFoundError:
            return False
        return True

    async def names(self, prefix: str) -> list[str]:
        """Of all objects whose names begin with `prefix`, which ends with `/`."""
        found = await self._ask(self._store.find, self._path(prefix))
        return [path.removeprefix(self._path("")) for path in found]

    async def folders(self, prefix: str = "") -> set[str]:
        """What comes next, up to a `/`, in names that begin with `prefix`, which ends with one."""
        try:
            found = await self._ask(self._store.ls, self._path(prefix), detail=True)
        except FileNotFoundError:  # nothing is there yet
            return set()
        return {one["name"].rstrip("/").rpartition("/")[2] for one in found if one["type"] == "directory"}

    async def older_than(self, before: datetime) -> set[str]:
        """Names of the objects that were made before `before`."""
        found = await self._ask(self._store.find, f"{self._bucket}/{self._prefix}", detail=True)
        return {path.rpartition("/")[2] for path, info in found.items() if info["LastModified"] < before}

    async def abort_stale(self, before: datetime) -> int:
        """End writes that were begun before `before` and will not be finished; returns how many."""
        under = {"Bucket": self._bucket, "Prefix": self._prefix}
        listed = await self._ask(self._store.call_s3, "list_multipart_uploads", **under)
        stale = [upload for upload in listed.get("Uploads", []) if upload["Initiated"] < before]
        for upload in stale:
            which = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            await self._ask(self._store.call_s3, "abort_multipart_upload", **which)
        return len(stale)

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._prefix}{name}"

    async def _ask(self, call: Callable[..., Answer], *args: object, **options: object) -> Answer:
        """In a thread, and to its end even if the request is torn down: what follows must not meet a call under way."""
        asked = asyncio.ensure_future(asyncio.to_thread(call, *args, **options))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.wait([asked])
            raise
        except FileNotFoundError:
            raise
        except self._troubles as error:
            raise Unavailable(f"The object store cannot be used: {error}. Try again shortly.") from error


@lru_cache
def bucket(url: str) -> Bucket:
    """One for each address and process."""
    return Bucket(url)
