"""bzip2 and xz files of one or several streams, laid end to end as `pbzip2` and `cat` do.

`BZ2File` and `LZMAFile` take whatever follows the first stream and is none for the end of the file, so a damaged
stream would lose its rows in silence. Here it is an error.
"""

import bz2
import io
import lzma
from typing import Any, BinaryIO

_READ = 2**16
_XZ_PADDING = 4  # zero bytes may follow an xz stream, in multiples of this (The .xz File Format, 2.2)


class Streams(io.RawIOBase):
    """The decompressed bytes of every stream in `file`.

    max_window: bytes that an xz stream may ask us to keep. Reading raises EOFError for a stream that is cut off,
    OSError (bzip2, without errno) or LZMAError (xz) for one that is damaged or asks for more, and for what is none.
    """

    def __init__(self, file: BinaryIO, kind: str, max_window: int) -> None:
        self._file = file
        self._padded = kind == "xz"
        self._max_window = max_window
        self._decoder = self._begin()
        self._held = b""  # read from the file and not yet given to a decoder

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decoder.eof:
                self._held = self._decoder.unused_data
                if self._padded:
                    self._skip_padding()
                if not (self._held or self._read()):
                    return 0
                self._decoder = self._begin()
            if self._decoder.needs_input and not self._held and not self._read():
                raise EOFError("the file ends within a stream")
            data, self._held = self._held, b""
            if made := self._decoder.decompress(data, len(buffer)):
                buffer[: len(made)] = made
                return len(made)

    def _begin(self) -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        if self._padded:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=self._max_window)
        return bz2.BZ2Decompressor()

    def _read(self) -> bool:
        self._held = self._file.read(_READ)
        return bool(self._held)

    def _skip_padding(self) -> None:
        skipped = 0
        while self._held or self._read():
            rest = self._held.lstrip(b"\0")
            skipped += len(self._held) - len(rest)
            self._held = rest
            if rest:
                break
        if skipped % _XZ_PADDING:
            raise lzma.LZMAError("the padding after a stream has an odd length")
