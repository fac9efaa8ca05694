"""Rows to examples in a test, one at a time."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from service.spec import DataSpec
from service.spec.rows import Row, RowError, RowProblem
from workers.data.examples import Example
from workers.data.tokenize import RowTokenizer


class RowEncoder:
    """`data` are fields of DataSpec. A row that cannot be used raises its RowError."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, **data: Any) -> None:
        self._encode = RowTokenizer(tokenizer, DataSpec.model_validate({"train": "file-" + "0" * 21} | data))

    def __call__(self, row: Row) -> Example:
        (result,) = self._encode([row])
        if isinstance(result, RowProblem):
            raise RowError(result.code, result.message, result.field)
        return result.example
