"""Chunks of rows to what is kept of them: examples for the job, facts for its report. Runs in the pool's processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.spec import DataSpec
from service.spec.rows import Row, RowProblem, Text
from workers.data.examples import Example
from workers.data.facts import Facts, SpecialTokenFinder, character_facts, token_facts
from workers.data.tokenize import Encoded, RowTokenizer, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Usable:
    """A row that the job can use; without a tokenizer there is no example of it."""

    facts: Facts
    example: Example | None


class TokenEncoder:
    """Tokenises rows. It can be sent to another process."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", data: DataSpec) -> None:
        self._tokenize = RowTokenizer(tokenizer, data)
        self._find_special = SpecialTokenFinder(special_tokens(tokenizer))
        self.exact = self._tokenize.exact

    def __call__(self, chunk: Sequence[Row | RowProblem]) -> list[Usable | RowProblem]:
        encoded = iter(self._tokenize([row for row in chunk if isinstance(row, Row)]))
        return [row if isinstance(row, RowProblem) else self._usable(row, next(encoded)) for row in chunk]

    def _usable(self, row: Row, encoded: Encoded | RowProblem) -> Usable | RowProblem:
        if isinstance(encoded, RowProblem):
            return encoded
        return Usable(token_facts(row, encoded, self._find_special(row)), encoded.example)


def measure(chunk: Sequence[Row | RowProblem]) -> list[Usable | RowProblem]:
    """Count characters, for want of a tokenizer."""
    return [row if isinstance(row, RowProblem) else Usable(character_facts(row), None) for row in chunk]


def approximate_size(row: Row | RowProblem) -> int:
    """Bytes, roughly, that a row takes on its way to another process."""
    if isinstance(row, RowProblem):
        return 100
    return _size(row.prompt) + sum(_size(answer) for answer in row.answers)


def _size(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(len(str(message.get("content"))) + 50 for message in text)
