"""Tokenised examples, and the file they are kept in between the stages of an attempt."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("prompt", pa.list_(pa.int32())),
        ("answers", pa.list_(pa.list_(pa.int32()))),
        ("masks", pa.list_(pa.list_(pa.bool_()))),
        ("label", pa.bool_()),
        ("weight", pa.float64()),
        ("margin", pa.float64()),
    ]
)
_ROWS_PER_GROUP = 4096


@dataclass(frozen=True)
class Answer:
    """Token ids after the prompt; `mask` marks the ones that count (an assistant's own words and its end token)."""

    ids: Ids
    mask: Mask

    @property
    def num_counted(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True)
class Example:
    """A prompt and its answers: the chosen and the rejected one of a pair, k of them best first of a ranking, or one.

    label: of an unpaired answer, whether it is desirable; else None. An unpaired answer for a loss with a KL term has
    a second one beside it, which was written for another prompt.
    weight, margin: as the row has them, or 1 and 0.
    """

    row: int
    prompt: Ids
    answers: tuple[Answer, ...]
    label: bool | None = None
    weight: float = 1.0
    margin: float = 0.0

    @property
    def max_length(self) -> int:
        """Tokens of the prompt with its longest answer."""
        return len(self.prompt) + max(len(answer.ids) for answer in self.answers)

    @property
    def key(self) -> bytes:
        """SHA-256 over ids and masks, each with its length: equal exactly when a model sees the same thing."""
        digest = hashlib.sha256()
        for ids in (self.prompt, *(answer.ids for answer in self.answers)):
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(ids.astype("<i4").tobytes())
        for answer in self.answers:
            digest.update(np.packbits(answer.mask).tobytes())
        return digest.digest()


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write all, then move the file into place; return their number."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
        for group in _chunks(examples, _ROWS_PER_GROUP):
            count += len(group)
            writer.write_batch(
                pa.record_batch(
                    [
                        [example.row for example in group],
                        [example.prompt for example in group],
                        [[answer.ids for answer in example.answers] for example in group],
                        [[answer.mask for answer in example.answers] for example in group],
                        [example.label for example in group],
                        [example.weight for example in group],
                        [example.margin for example in group],
                    ],
                    schema=_SCHEMA,
                )
            )
    temporary.replace(path)
    return count


class ExampleFile(Sequence[Example]):
    """The examples of a file, by position. Held as Arrow columns; an `Example` is made when it is asked for."""

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path, schema=_SCHEMA).combine_chunks()
        columns: dict[str, Any] = {
            name: table[name].chunk(0) if table.num_rows else pa.array([], _SCHEMA.field(name).type)
            for name in _SCHEMA.names
        }
        self._rows: NDArray[np.int64] = columns["row"].to_numpy()
        self._labels: list[bool | None] = columns["label"].to_pylist()
        self._weights: NDArray[np.float64] = columns["weight"].to_numpy()
        self._margins: NDArray[np.float64] = columns["margin"].to_numpy()
        prompts, answers, masks = columns["prompt"], columns["answers"], columns["masks"]
        self._prompt_offsets, self._prompt_ids = prompts.offsets.to_numpy(), prompts.values.to_numpy()
        self._answer_offsets = answers.offsets.to_numpy()  # of each example's answers
        self._token_offsets = answers.values.offsets.to_numpy()  # of each answer's tokens
        self._answer_ids = answers.values.values.to_numpy()
        self._answer_mask: Mask = masks.values.values.to_numpy(zero_copy_only=False).astype(np.bool_)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override] # positions only, no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        answers = [
            slice(self._token_offsets[i], self._token_offsets[i + 1])
            for i in range(self._answer_offsets[index], self._answer_offsets[index + 1])
        ]
        return Example(
            row=int(self._rows[index]),
            prompt=self._prompt_ids[self._prompt_offsets[index] : self._prompt_offsets[index + 1]],
            answers=tuple(Answer(self._answer_ids[at], self._answer_mask[at]) for at in answers),
            label=self._labels[index],
            weight=float(self._weights[index]),
            margin=float(self._margins[index]),
        )


def _chunks(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    group: list[Example] = []
    for example in examples:
        group.append(example)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
