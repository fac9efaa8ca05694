"""Reading the one file of a multipart form as a stream, without holding or spooling it.

OpenAI's package sends a field `purpose` too, which other clients leave out: there is one purpose here.
"""

from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from service.errors import InvalidRequest, UploadIncomplete

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PURPOSE = "fine-tune"


class FilePart:
    """The one file of a request's form. Open it first; then `filename` is known and `chunks` gives the bytes."""

    def __init__(self, request: Request, field: str = "file") -> None:
        """field: the name of the file's form field."""
        self._field = field
        example = f"`curl -F {field}=@pairs.jsonl`"
        self._how = f"Send multipart/form-data with the file in the field '{field}', as {example} does"
        kind, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise UploadIncomplete(f"This is not multipart form data. {self._how}.")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise UploadIncomplete(f"The boundary of the form is malformed. {self._how}.") from error
        self._body = request.stream()
        self._data: deque[bytes] = deque()
        self._name, self._value, self._disposition = b"", b"", b""
        self._purpose: bytes | None = None  # while its part is read
        self._ended = False
        self.filename: str | None = None

    async def open(self) -> str:
        """Read up to the file's first byte; returns its name. Raises InvalidRequest if the form has no file."""
        while self.filename is None and await self._read():
            continue
        if self.filename is None:
            raise InvalidRequest(f"The form has no file. {self._how}.", field=self._field)
        return self.filename

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes. Raises UploadIncomplete if the form breaks off before its closing boundary."""
        while True:
            while self._data:
                yield self._data.popleft()
            if not await self._read():
                return

    async def _read(self) -> bool:
        """Parse the next piece of the body; False at its proper end."""
        try:
            piece = await anext(self._body)
            if piece:
                self._parser.write(piece)
        except (StopAsyncIteration, ClientDisconnect) as error:
            if self._ended:
                return False
            raise UploadIncomplete("The upload broke off before its end; nothing was kept. Send it again.") from error
        except FormParserError as error:
            raise UploadIncomplete(f"The form is malformed: {error}. {self._how}.") from error
        return True

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode(errors="replace")
        if field == "purpose" and self._field == "file":
            self._purpose = b""
            return
        if field != self._field:
            raise InvalidRequest(f"There is no form field '{field[:100]}'. {self._how}.", field=field[:100])
        if self.filename is not None:
            raise InvalidRequest("The form has more than one file: send each in its own request.", field=field)
        self.filename = options.get(b"filename", b"").decode(errors="replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._purpose is None:
            self._data.append(data[start:end])
        else:
            self._purpose = (self._purpose + data[start:end])[:100]

    def _on_part_end(self) -> None:
        if self._purpose not in (None, PURPOSE.encode()):
            raise InvalidRequest(f"Files are taken for one purpose here: '{PURPOSE}'.", field="purpose")
        self._purpose = None

    def _on_end(self) -> None:
        self._ended = True
