"""Rows to token ids, with an exact boundary between prompt and answer.

Prompt and answer are rendered as text (`workers.data.render`), cut where the answer starts, and tokenised apart
(`workers.data.continuation`), so no token ever spans the boundary and no text appears at it.

- BOS stands once, where the tokenizer adds it to a string and where the template writes it into a dialogue: a template
  without it is served without it, and so trained without it.
- Every answer ends with exactly one end: the special token that ends the template's turn, or EOS where there is none.
- What a template puts after the last end of turn is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from service.spec import DataSpec
from service.spec.rows import Row, RowError, RowProblem
from workers.data.continuation import TextEncoder
from workers.data.examples import Answer, Example
from workers.data.render import Rendered, Renderer
from workers.data.truncate import fit
from workers.errors import AttemptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """An example, and the lengths it had before it was cut, in tokens."""

    example: Example
    prompt_length: int
    answer_lengths: tuple[int, ...]

    @property
    def truncated(self) -> bool:
        kept = tuple(len(answer.ids) for answer in self.example.answers)
        return (len(self.example.prompt), kept) != (self.prompt_length, self.answer_lengths)


class RowTokenizer:
    """Turns rows into examples, many in one call of the tokenizer. It can be sent to another process."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", data: DataSpec) -> None:
        if tokenizer.eos_token_id is None:
            raise AttemptError("tokenizer_unusable", "The tokenizer has no EOS token, so no answer could ever end.")
        special = special_tokens(tokenizer)
        self._data = data
        self._eos = int(tokenizer.eos_token_id)
        self._bos: int | None = tokenizer.bos_token_id
        self._special = frozenset(special.values())
        self._encoder = TextEncoder(tokenizer)
        self._render = Renderer(tokenizer, list(special), data.train_on)
        self.exact = self._encoder.exact
        self._closes = self._encoder.beginnings(["a"])[0][-1:] == [self._eos]  # it ends every text with EOS

    def __call__(self, rows: Sequence[Row]) -> list[Encoded | RowProblem]:
        """For each row, in order, what it became."""
        rendered = [self._rendered(row) for row in rows]
        good = [one for one in rendered if isinstance(one, Rendered)]
        plain = iter(self._encoder.plain([one.prompt for one in good if one.templated]))
        beginnings = iter(self._encoder.beginnings([one.prompt for one in good if not one.templated]))
        pieces = [piece for one in good for answer in one.answers for piece in answer]
        following = iter(self._encoder.continuations([piece.text for piece in pieces]))
        results: list[Encoded | RowProblem] = []
        for row, one in zip(rows, rendered, strict=True):
            if isinstance(one, RowError):
                results.append(problem(row, one))
                continue
            prompt = next(plain) if one.templated else self._without_doubles(next(beginnings))
            answers = [[(next(following), piece.counted) for piece in answer] for answer in one.answers]
            try:
                results.append(self._encoded(row, prompt, answers))
            except RowError as error:
                results.append(problem(row, error))
        return results

    def _rendered(self, row: Row) -> Rendered | RowError:
        try:
            rendered = self._render(row)
        except RowError as error:
            return error
        try:  # one text that is none would fail the whole call of the tokenizer
            rendered.prompt.encode()
            for piece in chain(*rendered.answers):
                piece.text.encode()
        except UnicodeEncodeError as error:
            return RowError("row_not_utf8", f"a lone surrogate at character {error.start} is not text")
        return rendered

    def _encoded(self, row: Row, prompt: list[int], answers: list[list[tuple[list[int] | None, bool]]]) -> Encoded:
        if not prompt:
            raise RowError("prompt_empty", "the prompt is empty and the tokenizer adds no token of its own", "prompt")
        made = tuple(self._answer(pieces) for pieces in answers)
        whole = Example(row.number, np.asarray(prompt, np.int32), made, row.label, row.weight, row.margin)
        example = fit(whole, self._data, self._bos)
        for name, answer in zip(_names(row), example.answers, strict=True):
            if answer.num_counted == 0:
                raise RowError("answer_empty", "no token of the answer counts after truncation", name)
        for i, answer in enumerate(example.answers):
            if any(np.array_equal(answer.ids, other.ids) for other in example.answers[:i]):
                raise RowError("answers_equal", "two answers are equal as tokens, after truncation to data.max_length")
        return Encoded(example, len(whole.prompt), tuple(len(answer.ids) for answer in made))

    def _answer(self, pieces: list[tuple[list[int] | None, bool]]) -> Answer:
        ids: list[int] = []
        mask: list[bool] = []
        for piece, counted in pieces:
            if piece is None:
                raise RowError(
                    "boundary_inexact", "the tokenizer merges the start of the answer with any text before it"
                )
            ids += piece
            mask += [counted] * len(piece)
        if not ids or ids[-1] not in self._special:
            ids.append(self._eos)
            mask.append(True)
        while ids[-2:] == [self._eos, self._eos]:
            ids.pop()
            mask.pop()
        return Answer(np.asarray(ids, np.int32), np.asarray(mask, np.bool_))

    def _without_doubles(self, prompt: list[int]) -> list[int]:
        """A prompt that spells its BOS has it once, though the tokenizer adds another; and not the EOS
        that some tokenizers put after every text."""
        if self._bos is not None and prompt[:2] == [self._bos, self._bos]:
            prompt = prompt[1:]
        return prompt[:-1] if self._closes else prompt


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """Text and id of the tokens that steer a model rather than say something."""
    tokens = {str(token): int(tokenizer.convert_tokens_to_ids(str(token))) for token in tokenizer.all_special_tokens}
    tokens |= {str(token): token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return tokens


def problem(row: Row, error: RowError) -> RowProblem:
    return RowProblem(row.number, error.code, str(error), error.field)


def _names(row: Row) -> list[str]:
    """The columns that the answers are in, for a person to find them."""
    if len(row.answers) == 1:
        return ["completion"]
    return ["chosen", "rejected"] if len(row.answers) == 2 else [f"answers[{i}]" for i in range(len(row.answers))]
