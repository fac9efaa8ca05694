"""The file that examples are kept in between the stages of an attempt.

Arrow's IPC format, not compressed: every worker maps the same file into memory and reads of it what it needs.

KL partners. A loss on unpaired rows with a KL term (KTO, Ethayarajh et al., arXiv 2402.01306) estimates the policy's
distance from the reference on answers that do not belong to their prompts. Here an example's partner is the answer of
the next example in row order that has another prompt; behind the last such one the file starts again. So it depends
on nothing but the rows: not on batch size, workers or seed. (TRL shifts the answers within a batch, so its estimate
changes with the batch.) A partner's answer is cut where prompt + answer would be longer than `max_length`.

Partners are not stored. Neighbours with equal prompts form a run, whose number is in the file; the partner of an
example is the first one of the next run.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.arrow import pa
from workers.data.examples import Answer, Example, Ids
from workers.errors import AttemptError

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("prompt", pa.list_(pa.int32())),
        ("answers", pa.list_(pa.list_(pa.int32()))),
        ("masks", pa.list_(pa.list_(pa.uint8()))),  # bytes, which numpy reads in place
        ("label", pa.bool_()),
        ("weight", pa.float64()),
        ("margin", pa.float64()),
        ("run", pa.int64()),
    ]
)
_ROWS_PER_BATCH = 1024
_KL_MAX_LENGTH = b"kl_max_length"


def write_examples(path: Path, examples: Iterable[Example], *, kl_max_length: int | None = None) -> int:
    """Write all, then move the file into place; return their number.

    kl_max_length: give each example a KL partner, so that prompt and partner's answer are no longer than this. Raises
    AttemptError `kl_needs_prompts` when all prompts are equal.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    schema = _SCHEMA
    if kl_max_length is not None:
        schema = schema.with_metadata({_KL_MAX_LENGTH: str(kl_max_length)})
    count, run, last = 0, -1, None
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for group in _groups(examples, _ROWS_PER_BATCH):
            runs = []
            for example in group:
                run += last is None or not np.array_equal(last, example.prompt)
                last = example.prompt
                runs.append(run)
            count += len(group)
            writer.write_batch(_batch(group, runs, schema))
    if kl_max_length is not None and count and run == 0:
        temporary.unlink()
        raise kl_needs_prompts()
    temporary.replace(path)
    return count


def kl_needs_prompts() -> AttemptError:
    return AttemptError(
        "kl_needs_prompts",
        "The loss has a KL term, which is measured on answers to other prompts, but all rows have the same prompt. "
        "Add rows with other prompts, or use a loss without a KL term, such as `apo_zero_unpaired`.",
    )


class ExampleFile(Sequence[Example]):
    """The examples of a file, by position; their arrays are views of the file, and must not be written to."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [_Columns(reader.get_batch(i)) for i in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])
        limit = (reader.schema.metadata or {}).get(_KL_MAX_LENGTH)
        self._kl_max_length = None if limit is None else int(limit)
        runs = [batch.runs for batch in self._batches] if limit else []
        self._run_starts = np.unique(np.concatenate(runs), return_index=True)[1] if runs else None

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def rows(self) -> NDArray[np.int64]:
        """Of each example, the number of its row in the file that it was made from."""
        return np.concatenate([np.empty(0, np.int64), *(batch.rows for batch in self._batches)])

    def __getitem__(self, index: int) -> Example:  # type: ignore[override] # positions only, no slices
        example, run = self._read(index)
        if self._kl_max_length is None:
            return example
        partner = self._partner(example, run)
        room = self._kl_max_length - len(example.prompt)
        return replace(example, answers=(*example.answers, Answer(partner.ids[:room], partner.mask[:room])))

    def _read(self, index: int) -> tuple[Example, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._batches[batch].read(index - int(self._starts[batch]))

    def _partner(self, example: Example, run: int) -> Answer:
        assert self._run_starts is not None
        following = (run + 1) % len(self._run_starts)
        partner, _ = self._read(int(self._run_starts[following]))
        if np.array_equal(partner.prompt, example.prompt):  # the file ends with the prompt that it starts with
            partner, _ = self._read(int(self._run_starts[following + 1]))
        return partner.answers[0]


class _Columns:
    """The columns of one record batch, as numpy arrays of its memory."""

    def __init__(self, batch: Any) -> None:
        self.rows: NDArray[np.int64] = batch["row"].to_numpy()
        self._labels: list[bool | None] = batch["label"].to_pylist()
        self._weights: NDArray[np.float64] = batch["weight"].to_numpy()
        self._margins: NDArray[np.float64] = batch["margin"].to_numpy()
        self.runs: NDArray[np.int64] = batch["run"].to_numpy()
        prompts, answers, masks = batch["prompt"], batch["answers"], batch["masks"]
        self._prompt_offsets, self._prompt_ids = prompts.offsets.to_numpy(), prompts.values.to_numpy()
        self._answer_offsets = answers.offsets.to_numpy()  # of each example's answers
        self._token_offsets = answers.values.offsets.to_numpy()  # of each answer's tokens
        self._answer_ids = answers.values.values.to_numpy()
        self._answer_mask = masks.values.values.to_numpy().view(np.bool_)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> tuple[Example, int]:
        """An example and the number of its run."""
        answers = [
            slice(self._token_offsets[i], self._token_offsets[i + 1])
            for i in range(self._answer_offsets[index], self._answer_offsets[index + 1])
        ]
        example = Example(
            row=int(self.rows[index]),
            prompt=self._prompt_ids[self._prompt_offsets[index] : self._prompt_offsets[index + 1]],
            answers=tuple(Answer(self._answer_ids[at], self._answer_mask[at]) for at in answers),
            label=self._labels[index],
            weight=float(self._weights[index]),
            margin=float(self._margins[index]),
        )
        return example, int(self.runs[index])


def _batch(examples: Sequence[Example], runs: list[int], schema: Any) -> Any:
    answers = [answer for example in examples for answer in example.answers]
    per_example = _offsets([len(example.answers) for example in examples])
    per_answer = _offsets([len(answer.ids) for answer in answers])
    ids = np.concatenate([answer.ids for answer in answers])
    mask = np.concatenate([answer.mask for answer in answers]).view(np.uint8)
    columns = [
        pa.array([example.row for example in examples], pa.int64()),
        _lists([example.prompt for example in examples]),
        pa.ListArray.from_arrays(per_example, pa.ListArray.from_arrays(per_answer, pa.array(ids))),
        pa.ListArray.from_arrays(per_example, pa.ListArray.from_arrays(per_answer, pa.array(mask))),
        pa.array([example.label for example in examples], pa.bool_()),
        pa.array([example.weight for example in examples], pa.float64()),
        pa.array([example.margin for example in examples], pa.float64()),
        pa.array(runs, pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _lists(arrays: list[Ids]) -> Any:
    return pa.ListArray.from_arrays(_offsets([len(one) for one in arrays]), pa.array(np.concatenate(arrays)))


def _offsets(lengths: list[int]) -> Any:
    return pa.array(np.cumsum([0, *lengths]), pa.int32())


def _groups(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    group: list[Example] = []
    for example in examples:
        group.append(example)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
