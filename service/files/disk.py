"""Bytes that come in as a stream, put on disk whole or not at all."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from service.errors import TooLarge

_BUFFER_BYTES = 2**20


async def write_whole(final: Path, chunks: AsyncIterator[bytes], max_bytes: int, too_large: str) -> tuple[int, str]:
    """Write the chunks under a temporary name, sync and rename them; memory used does not grow with them.

    Returns their number of bytes and SHA-256. If `chunks` raises, nothing is left; what a crash leaves is called
    `*.part`. Raises TooLarge, with the text `too_large`, past `max_bytes`.
    """
    part = final.with_name(f"{final.name}.part")
    try:
        size, sha256 = await _write(part, chunks, max_bytes, too_large)
        await asyncio.to_thread(_publish, part, final)
    except BaseException:  # also a request that is torn down (CancelledError)
        part.unlink(missing_ok=True)
        raise
    return size, sha256


async def _write(part: Path, chunks: AsyncIterator[bytes], max_bytes: int, too_large: str) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    buffer = bytearray()
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("xb") as out:

        def flush() -> None:
            digest.update(buffer)
            out.write(buffer)

        async for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise TooLarge(too_large)
            buffer += chunk
            if len(buffer) >= _BUFFER_BYTES:
                await asyncio.to_thread(flush)
                buffer.clear()
        await asyncio.to_thread(flush)
        await asyncio.to_thread(_sync, out)
    return size, digest.hexdigest()


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _publish(part: Path, final: Path) -> None:
    part.rename(final)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
