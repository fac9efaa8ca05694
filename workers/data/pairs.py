"""Tokenised pairs, and the file they are kept in between the stages of an attempt."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]

_SCHEMA = pa.schema(
    [
        ("line", pa.int64()),
        ("prompt", pa.list_(pa.int32())),
        ("chosen", pa.list_(pa.int32())),
        ("chosen_mask", pa.list_(pa.bool_())),
        ("rejected", pa.list_(pa.int32())),
        ("rejected_mask", pa.list_(pa.bool_())),
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
class Pair:
    """A prompt with a chosen answer and, unless the row had none, a rejected one (else empty)."""

    line: int
    prompt: Ids
    chosen: Answer
    rejected: Answer

    @property
    def answers(self) -> tuple[Answer, ...]:
        return (self.chosen, self.rejected) if len(self.rejected.ids) else (self.chosen,)

    @property
    def max_length(self) -> int:
        """Tokens of the longer of prompt + chosen and prompt + rejected."""
        return len(self.prompt) + max(len(answer.ids) for answer in self.answers)

    @property
    def key(self) -> bytes:
        """SHA-256 over ids and masks, each with its length: equal exactly when the model sees the same thing."""
        digest = hashlib.sha256()
        for ids in (self.prompt, self.chosen.ids, self.rejected.ids):
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(ids.astype("<i4").tobytes())
        for mask in (self.chosen.mask, self.rejected.mask):
            digest.update(np.packbits(mask).tobytes())
        return digest.digest()


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write all pairs, then move the file into place; return their number."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
        for group in _chunks(pairs, _ROWS_PER_GROUP):
            count += len(group)
            writer.write_batch(
                pa.record_batch(
                    [
                        [pair.line for pair in group],
                        [pair.prompt for pair in group],
                        [pair.chosen.ids for pair in group],
                        [pair.chosen.mask for pair in group],
                        [pair.rejected.ids for pair in group],
                        [pair.rejected.mask for pair in group],
                    ],
                    schema=_SCHEMA,
                )
            )
    temporary.replace(path)
    return count


class PairFile(Sequence[Pair]):
    """The pairs of a file, by position. Held as Arrow columns; a `Pair` is made when it is asked for."""

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path, schema=_SCHEMA).combine_chunks()
        self._lines: NDArray[np.int64] = table["line"].to_numpy()
        self._columns = {
            name: (column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False))
            for name in _SCHEMA.names[1:]
            for column in [table[name].chunk(0) if table.num_rows else pa.array([], _SCHEMA.field(name).type)]
        }

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override] # positions only, no slices
        def cell(name: str) -> NDArray[np.int32]:
            offsets, values = self._columns[name]
            return values[offsets[index] : offsets[index + 1]]  # type: ignore[no-any-return]

        return Pair(
            line=int(self._lines[index]),
            prompt=cell("prompt"),
            chosen=Answer(cell("chosen"), cell("chosen_mask").astype(np.bool_)),
            rejected=Answer(cell("rejected"), cell("rejected_mask").astype(np.bool_)),
        )


def _chunks(pairs: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    group: list[Pair] = []
    for pair in pairs:
        group.append(pair)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
