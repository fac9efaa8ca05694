"""What the readers of files have in common: numbered values, and what ends a file early."""

from dataclasses import dataclass
from typing import Any

MAX_ROW_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Record:
    """One value of a file. `number` counts from 1: the line in JSON Lines, the record in any other file."""

    number: int
    value: Any


class FileDamage(Exception):
    """The rest of the file cannot be read. `code` and the message become those of a fatal `RowProblem`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ReaderMissing(Exception):
    """This process lacks the package that reads such files; another one, on the cluster, has it."""
