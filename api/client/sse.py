"""Server-sent events, read line by line."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Frame:
    """One frame of a stream whose data is JSON. `id` is set on what a later `Last-Event-ID` can name."""

    event: str
    data: Any
    id: int | None = None


@dataclass
class FrameParser:
    """Comments are skipped, and so is a frame that is cut off."""

    _event: str = "message"
    _id: int | None = None
    _data: list[str] = field(default_factory=list)

    def feed(self, line: str) -> Frame | None:
        """The frame that ends with this line, which has no line break."""
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = int(value)
        return None

    def _end(self) -> Frame | None:
        event, data, number = self._event, self._data, self._id
        self._event, self._data, self._id = "message", [], None
        if not data and event == "message":
            return None
        return Frame(event, json.loads("\n".join(data)) if data else None, number)
