"""Dialogues, their tokens and what came of them, for tests of the boundary between prompt and answer."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from service.spec.rows import Row, RowError
from tests.encoding import RowEncoder
from tests.tokenizers import CHATML, LLAMA3, byte_level
from workers.data.examples import Answer, Example

WORDS = ["user", "assistant", "system", "tool", "model", "hi", "ok", "no", "sure", "fine", "x"]
IM = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
CHAT = [{"role": "user", "content": "hi"}]
ASKED = ["<|im_start|>", "user", "Ċ", "hi", "<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]
LLAMA3_SPECIAL = ["<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
EMPTY_THOUGHT = ["<think>", "Ċ", "Ċ", "</think>", "Ċ", "Ċ"]


def chatml(template: str = CHATML) -> PreTrainedTokenizerFast:
    return byte_level(template, WORDS, IM, eos="<|im_end|>", marks=["<think>", "</think>"])


def says(text: str, **fields: Any) -> list[Any]:
    return [{"role": "assistant", "content": text, **fields}]


def asks(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def prompt_of(tokenizer: PreTrainedTokenizerFast, example: Example) -> list[str]:
    pieces: list[str] = tokenizer.convert_ids_to_tokens(example.prompt.tolist())
    return pieces


def answer_of(tokenizer: PreTrainedTokenizerFast, answer: Answer) -> list[str]:
    """The pieces; those that do not count in parentheses."""
    pieces = tokenizer.convert_ids_to_tokens(answer.ids.tolist())
    return [piece if counts else f"({piece})" for piece, counts in zip(pieces, answer.mask, strict=True)]


def refusal(tokenizer: PreTrainedTokenizerFast, row: Row, **data: Any) -> RowError:
    with pytest.raises(RowError) as error:
        RowEncoder(tokenizer, **data)(row)
    return error.value


def llama3() -> PreTrainedTokenizerFast:
    return byte_level(LLAMA3, WORDS, LLAMA3_SPECIAL, eos="<|eot_id|>", bos="<|begin|>")
