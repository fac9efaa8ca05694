"""A file's bytes, decompressed if it is compressed: told by its first bytes, never by its name."""

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from backports import zstd

from service.spec.rows.files.record import FileDamage
from service.spec.rows.files.streams import Streams

_MAX_RATIO = 200  # of decompressed to compressed; dialogues reach 20
_ALWAYS_ALLOWED = 64 * 2**20
_NEVER_ALLOWED = 16 * 2**30  # of a compressed file, however large: reading it would hold up everyone else
_MAX_WINDOW = 2**28  # bytes of history that xz and zstd may ask us to keep; their highest usual levels need 2**27
_BUFFER = 2**20
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class _Bounded(io.RawIOBase):
    """Passes bytes on until there are more than a file of its size honestly holds."""

    def __init__(self, inner: BinaryIO, allowed: int) -> None:
        self._inner = inner
        self._left = allowed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise bomb()
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """The decompressed bytes as a stream. Reading raises FileDamage where they are damaged, cut off or far too many."""
    allowed = bytes_allowed(path)
    with path.open("rb") as file:
        kind = compression(path)
        try:
            with _decompressed(file, kind) as inner:
                yield io.BufferedReader(_Bounded(inner, allowed), _BUFFER)
        except (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError) as error:
            raise FileDamage("compression_damaged", f"the {kind} stream is damaged or cut off: {error}") from error
        except OSError as error:
            if error.errno is not None or kind is None:  # the disk's, not the decompressor's
                raise
            raise FileDamage("compression_damaged", f"the {kind} stream is damaged: {error}") from error


def bytes_allowed(path: Path) -> int:
    """How many bytes the file may hold once it is decompressed."""
    size = path.stat().st_size
    return max(size, min(max(_MAX_RATIO * size, _ALWAYS_ALLOWED), _NEVER_ALLOWED))


def bomb() -> FileDamage:
    return FileDamage(
        "compression_bomb",
        f"decompressed, the file holds more than {_MAX_RATIO} times its own size, or more than "
        f"{_NEVER_ALLOWED // 2**30} GiB: split it",
    )


def compression(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(8)
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def _decompressed(file: BinaryIO, kind: str | None) -> BinaryIO:
    if kind == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if kind in ("bzip2", "xz"):
        return cast(BinaryIO, Streams(file, kind, _MAX_WINDOW))
    if kind == "zstd":
        options = {int(zstd.DecompressionParameter.window_log_max): _MAX_WINDOW.bit_length() - 1}
        return cast(BinaryIO, zstd.ZstdFile(file, options=options))
    return file
