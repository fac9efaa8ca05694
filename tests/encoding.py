"""Rows to examples in a test, one at a time."""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase

from service.spec import DataSpec
from service.spec.rows import Row, RowError, RowProblem
from workers.data.examples import Example
from workers.data.tokenize import RowTokenizer


def encoder(tokenizer: PreTrainedTokenizerBase, **data: Any) -> Callable[[Row], Example]:
    """`data` are fields of DataSpec. A row that cannot be used raises its RowError."""
    encode = RowTokenizer(tokenizer, DataSpec.model_validate({"train": "file-" + "0" * 21} | data))

    def one(row: Row) -> Example:
        (result,) = encode([row])
        if isinstance(result, RowProblem):
            raise RowError(result.code, result.message, result.field)
        return result.example

    return one
