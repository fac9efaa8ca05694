"""What a row is once it is read: a prompt with its answers; and what is said of one that cannot be read."""

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]  # role and content, both strings; name, tool calls, thoughts where the row has them
Text = str | list[Message]


@dataclass(frozen=True)
class Row:
    """A prompt with its answers; strings throughout or messages throughout. Numbers count from 1.

    answers: the chosen and the rejected one of a pair; k of them, best first, of a ranking; or one.
    label: of an unpaired answer, whether it is desirable; else None.
    weight, margin: what the loss of this row is multiplied by, and the least reward margin that it asks for.
    """

    number: int
    prompt: Text
    answers: tuple[Text, ...]
    label: bool | None = None
    weight: float = 1.0
    margin: float = 0.0
    tools: list[dict[str, Any]] | None = None
    template_kwargs: dict[str, Any] | None = None


@dataclass(frozen=True)
class RowProblem:
    """Why a row cannot be used. `code` is stable; `field` is the column at fault, if one is."""

    row: int
    code: str
    message: str
    field: str | None = None
    fatal: bool = False  # the rest of the file cannot be read either, so leaving the row out would lose rows unseen


class RowError(ValueError):
    """A value that is no usable row. `code`, the message and `field` become those of a `RowProblem`."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


@dataclass(frozen=True)
class Dialogue:
    """What a format finds in one value of the file, before weights, margins and the needs of the losses.

    scores: one per answer, where the format brings them along with the answers.
    """

    prompt: Text
    answers: tuple[Text, ...]
    label: bool | None = None
    tools: list[dict[str, Any]] | None = None
    scores: tuple[float, ...] | None = None
