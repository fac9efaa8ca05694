"""Server-sent events, read line by line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """One frame of a server-sent event stream. `id` is set on what a later `Last-Event-ID` can name."""

    event: str
    data: Any
    id: int | None = None


def parse_frames(lines: Iterator[str]) -> Iterator[Frame]:
    """Frames of a `text/event-stream` whose data is JSON; comments are skipped, and so is a frame that is cut off."""
    event, number = "message", None
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Frame(event, json.loads("\n".join(data)), number)
            elif event != "message":
                yield Frame(event, None, number)
            event, data, number = "message", [], None
        elif name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            number = int(value)
