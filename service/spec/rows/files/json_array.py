"""JSON: one array of values, read piece by piece so that memory does not grow with it."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from service.spec.rows.files.record import MAX_ROW_BYTES, FileDamage, Record

_CHUNK = 2**16
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


def read_json_array(file: BinaryIO) -> Iterator[Record]:
    """Raises FileDamage where the text is no array any more, and for values of more than MAX_ROW_BYTES.

    Bytes that are not UTF-8 become lone surrogates, which are refused in any text that a row keeps.
    """
    text = _Text(file)
    text.expect("[")
    number = 1
    while text.peek() != "]" or number > 1:
        yield Record(number, text.value())
        number += 1
        if text.peek() == "]":
            break
        text.expect(",")
    text.expect("]")
    if text.peek():
        raise FileDamage("row_not_json", "there is more text after the end of the array")


class _Text:
    """The text from the current position on, of which only a window is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._window = ""
        self._at = 0
        self._more = True

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._window) or not self._read(_CHUNK):
                return self._window[self._at : self._at + 1]

    def expect(self, character: str) -> None:
        if (found := self.peek()) != character:
            what = repr(found) if found else "the end of the file"
            raise FileDamage("row_not_json", f"there should be {character!r} and there is {what}")
        self._at += 1

    def value(self) -> Any:
        """The next value. A window that ends within it is doubled: each text is parsed twice at most, in the mean."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
            except (ValueError, RecursionError) as error:
                if not self._enlarge():
                    raise FileDamage("row_not_json", f"not a JSON value: {error}"[:300]) from error
            else:
                if end < len(self._window) or not self._enlarge():  # "12" at the end may be the start of "123"
                    self._at = end
                    return value

    def _enlarge(self) -> bool:
        held = len(self._window) - self._at
        if held > MAX_ROW_BYTES:
            raise FileDamage("row_too_long", f"the value is not JSON, or longer than {MAX_ROW_BYTES} bytes")
        return self._read(max(min(held, MAX_ROW_BYTES + 1 - held), _CHUNK))

    def _read(self, size: int) -> bool:
        """Add `size` bytes to the window, and drop what is behind; whether there were any."""
        data = self._file.read(size) if self._more else b""
        self._more = bool(data)
        self._window = self._window[self._at :] + self._decoder.decode(data, final=not data)
        self._at = 0
        return bool(data)
