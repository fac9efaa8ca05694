"""Rows to token ids, with an exact boundary between prompt and answer.

Prompt and answer are rendered as text, cut where the answer starts, and tokenised apart, so no token ever spans the
boundary. With messages, the chat template decides the text, and the boundary is the end of its generation prompt:
what the model is given when it is served. Only assistant messages count, each with its end-of-turn token.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from service.spec import Truncation
from service.spec.rows import Message, Row, RowError, Text
from workers.data.examples import Answer, Example
from workers.errors import AttemptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RowTokenizer:
    """Turns a `Row` into an `Example`; raises `RowError` for a row that has no usable form."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_length: int, truncation: Truncation) -> None:
        if tokenizer.eos_token_id is None:
            raise AttemptError("tokenizer_unusable", "The tokenizer has no EOS token, so no answer could ever end.")
        self._tokenizer = tokenizer
        self._eos = int(tokenizer.eos_token_id)
        self._special = set(tokenizer.all_special_ids) | {
            token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._max_length = max_length
        self._truncation = truncation
        self.num_truncated = 0

    def __call__(self, row: Row) -> Example:
        prompt = self._prompt(row.prompt)
        if not prompt:
            raise RowError("prompt_empty", "the prompt is empty and the tokenizer adds no token of its own", "prompt")
        answers = tuple(self._answer(row.prompt, answer) for answer in row.answers)
        example = self._fit(
            Example(row.number, np.asarray(prompt, np.int32), answers, row.label, row.weight, row.margin)
        )
        for name, answer in zip(("chosen", "rejected"), example.answers, strict=False):
            if answer.num_counted == 0:
                raise RowError("answer_empty", "no token of the answer counts after truncation", name)
        if len(answers) > 1 and np.array_equal(example.answers[0].ids, example.answers[1].ids):
            raise RowError("answers_equal", "the answers are equal as tokens, after truncation to data.max_length")
        return example

    def _prompt(self, prompt: Text) -> list[int]:
        if isinstance(prompt, str):
            ids: list[int] = self._tokenizer(prompt)["input_ids"]
            # some tokenizers close every text with EOS, which would end the prompt before its answer
            return ids[:-1] if ids and ids[-1] == self._eos else ids
        return self._encode(self._render(prompt, generation_prompt=True))

    def _answer(self, prompt: Text, answer: Text) -> Answer:
        ids: list[int] = []
        mask: list[bool] = []
        if isinstance(answer, str):
            ids = self._encode(answer)
            mask = [True] * len(ids)
        else:
            assert not isinstance(prompt, str)
            for text, counted in self._segments(prompt, answer):
                segment = self._encode(text)
                end = self._end_of_turn(segment) if counted else 0
                ids += segment
                mask += [i < end for i in range(len(segment))]
            while mask and not mask[-1]:  # what a template puts after the last end of turn, such as a newline
                ids.pop()
                mask.pop()
        if not ids or ids[-1] not in self._special:
            ids.append(self._eos)
            mask.append(True)
        return Answer(np.asarray(ids, np.int32), np.asarray(mask, np.bool_))

    def _segments(self, prompt: list[Message], answer: list[Message]) -> Iterator[tuple[str, bool]]:
        """The text after the prompt, in pieces: each assistant's turn (counted), and all between them (not)."""
        done = self._render(prompt, generation_prompt=True)
        for i, message in enumerate(answer):
            if message["role"] != "assistant":
                continue
            opened = self._render([*prompt, *answer[:i]], generation_prompt=True)
            closed = self._render([*prompt, *answer[: i + 1]], generation_prompt=False)
            if not opened.startswith(done) or not closed.startswith(opened):
                raise RowError(
                    "template_not_incremental",
                    "the chat template changes earlier text when a turn is added, so the answer has no exact start",
                )
            yield opened[len(done) :], False
            yield closed[len(opened) :], True
            done = closed

    def _end_of_turn(self, ids: list[int]) -> int:
        """How many tokens belong to the turn: up to its last special token, if only white space follows that."""
        for i in range(len(ids) - 1, -1, -1):
            if ids[i] in self._special:
                return i + 1
            if self._tokenizer.decode([ids[i]]).strip():
                break
        return len(ids)

    def _fit(self, example: Example) -> Example:
        if example.max_length <= self._max_length:
            return example
        if self._truncation is Truncation.ERROR:
            raise RowError("row_too_long", f"{example.max_length} tokens, data.max_length is {self._max_length}")
        self.num_truncated += 1
        prompt = example.prompt
        if self._truncation is Truncation.KEEP_END:
            room = self._max_length - max(len(answer.ids) for answer in example.answers)
            prompt = prompt[len(prompt) - max(room, 1) :] if room < len(prompt) else prompt
        room = self._max_length - len(prompt)
        if room < 1:
            raise RowError("prompt_too_long", f"the prompt alone has {len(prompt)} tokens", "prompt")
        return replace(example, prompt=prompt, answers=tuple(_cut(answer, room) for answer in example.answers))

    def _render(self, messages: list[Message], *, generation_prompt: bool) -> str:
        if self._tokenizer.chat_template is None:
            raise AttemptError(
                "chat_template_missing",
                "The rows are dialogues but the model's tokenizer has no chat template; add one, or use rows whose "
                "prompt, chosen and rejected are strings.",
            )
        text: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation_prompt
        )
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _cut(answer: Answer, room: int) -> Answer:
    return Answer(answer.ids[:room], answer.mask[:room])
