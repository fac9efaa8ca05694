"""Examples to micro-batches of bounded size.

Two forms. *Packed*: one row without padding, in which every prompt stands once, followed by its answers, then the next
example (see `workers.engine.shared_prompt`). *Padded*: a row for every prompt + answer, for models that cannot share.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.data.examples import Example
from workers.device import put
from workers.engine.layout import Layout, Segment
from workers.engine.parallel import Rank
from workers.losses import Facts


@dataclass(frozen=True)
class Batch:
    """B examples. S rows of T tokens: one if packed. K is the largest number of answers an example has.

    Padded rows have no attention mask: attention is causal, so no counted token ever sees the padding, on the right.

    N tokens are of interest: the counted ones of answers and, if asked for, those of prompts. `predicts_N` is the
    position in the flattened [S * T] whose hidden state predicts each, `targets_N` the tokens, `slot_N` where each
    belongs: example * K + answer, or B * K + example for a token of a prompt. Tokens of an answer stand together.
    """

    positions: tuple[int, ...]  # of its examples in the list the batches were made from
    input_ids_ST: Tensor
    position_ids_ST: Tensor
    layout: Layout | None  # of a packed row
    predicts_N: Tensor
    targets_N: Tensor
    slot_N: Tensor
    of_answers_A: Tensor  # which of the N are not of a prompt; a mask's length would have to be read from the GPU
    shared_N: Tensor  # bool: among the first tokens of an answer, as many as the example's shortest answer has
    answer_lengths: tuple[tuple[int, ...], ...]  # counted tokens of each example's answers
    num_answers: int  # K
    num_tokens: int  # without padding
    is_filler: bool = False  # its results do not count: it keeps in step with workers that have a batch more

    @property
    def num_examples(self) -> int:
        return len(self.positions)


def micro_batches(
    examples: Sequence[Example],
    max_tokens: int,
    device: torch.device,
    *,
    packed: bool,
    with_prompts: bool = False,
    rank: Rank | None = None,
) -> Iterator[Batch]:
    """Batches of at most `max_tokens`, padding included; a longer example goes alone.

    with_prompts: the prompts' tokens, but the first of each, are of interest too.
    rank: only this worker's batches, of examples that are the same for every worker. All workers have as many, since
    sharded models compute together; fillers see to that.
    """
    bins = _packed_bins(examples, max_tokens) if packed else list(_padded_bins(examples, max_tokens))
    for positions, is_filler in _dealt(examples, bins, rank or Rank()):
        yield _collate(examples, positions, device, packed, with_prompts, is_filler)


def num_tokens(example: Example) -> int:
    """Of an example whose prompt is read once."""
    return len(example.prompt) + sum(len(answer.ids) for answer in example.answers)


def facts_of(examples: Sequence[Example], device: torch.device) -> Facts:
    num_answers = max(len(example.answers) for example in examples)
    counts = [[answer.num_counted for answer in example.answers] for example in examples]
    labels = [example.label for example in examples]

    def tensor(values: Any, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return Facts(
        counts_BK=tensor([row + [0] * (num_answers - len(row)) for row in counts]),
        weights_B=tensor([example.weight for example in examples]),
        margins_B=tensor([example.margin for example in examples]),
        prompt_counts_B=tensor([len(example.prompt) - 1 for example in examples]),
        desirable_B=None if labels[0] is None else tensor(labels, torch.bool),
    )


def _dealt(examples: Sequence[Example], bins: list[list[int]], rank: Rank) -> Iterator[tuple[list[int], bool]]:
    """This worker's bins. The fullest are halved until every worker has as many; where nothing is left to halve, a
    worker that is short of one takes the smallest example as a filler."""
    missing = -len(bins) % rank.count
    for _ in range(missing):
        bins.sort(key=lambda one: (len(one) < 2, -sum(num_tokens(examples[i]) for i in one)))
        if len(bins[0]) < 2:
            break
        by_size = sorted(bins[0], key=lambda i: -num_tokens(examples[i]))
        bins[:1] = [by_size[::2], by_size[1::2]]
    if rank.count > 1:
        bins.sort(key=lambda one: -sum(num_tokens(examples[i]) for i in one))
    for start in range(0, len(bins), rank.count):
        mine = bins[start : start + rank.count]
        if rank.index < len(mine):
            yield mine[rank.index], False
        else:
            yield [min(range(len(examples)), key=lambda i: num_tokens(examples[i]))], True


def _packed_bins(examples: Sequence[Example], max_tokens: int) -> list[list[int]]:
    """First fit, longest first."""
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(examples)), key=lambda i: -num_tokens(examples[i])):
        size = num_tokens(examples[i])
        at = next((at for at, left in enumerate(room) if size <= left), None)
        if at is None:
            bins.append([])
            room.append(max_tokens)
            at = -1
        bins[at].append(i)
        room[at] -= size
    return bins


def _padded_bins(examples: Sequence[Example], max_tokens: int) -> Iterator[list[int]]:
    """Examples of like length together."""
    by_length = sorted(range(len(examples)), key=lambda i: -examples[i].max_length)
    start = 0
    while start < len(by_length):
        length = examples[by_length[start]].max_length
        stop, rows = start, 0
        while stop < len(by_length):
            rows += len(examples[by_length[stop]].answers)
            if rows * length > max_tokens and stop > start:
                break
            stop += 1
        yield by_length[start:stop]
        start = stop


def _collate(
    examples: Sequence[Example],
    positions: Sequence[int],
    device: torch.device,
    packed: bool,
    with_prompts: bool,
    is_filler: bool,
) -> Batch:
    members = [examples[i] for i in positions]
    num_answers = max(len(example.answers) for example in members)
    if packed:
        shape = 1, sum(map(num_tokens, members))
    else:
        shape = sum(len(example.answers) for example in members), max(example.max_length for example in members)
    ids, place = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    flat_ids, flat_place = ids.reshape(-1), place.reshape(-1)
    predicts, targets, slots, shared = [], [], [], []
    segments: list[Segment] = []

    def note(at: NDArray[np.int64], before: NDArray[np.int64], slot: int, among_shared: NDArray[np.bool_]) -> None:
        predicts.append(before)
        targets.append(flat_ids[at])
        slots.append(np.full(len(at), slot))
        shared.append(among_shared)

    end = row = used = 0
    for index, example in enumerate(members):
        shortest = min(answer.num_counted for answer in example.answers)
        length = len(example.prompt)
        spans = []
        for k, answer in enumerate(example.answers):
            if k == 0 or not packed:  # the prompt, once or before every answer
                start = end if packed else row * shape[1]
                row += 1
                flat_ids[start : start + length] = example.prompt
                flat_place[start : start + length] = np.arange(length)
                end = start + length
                used += length
                if with_prompts and k == 0:
                    at = np.arange(start + 1, end)
                    note(at, at - 1, len(members) * num_answers + index, np.zeros(length - 1, np.bool_))
            spans.append(slice(end, end + len(answer.ids)))
            flat_ids[spans[-1]] = answer.ids
            flat_place[spans[-1]] = np.arange(length, length + len(answer.ids))
            offsets = answer.mask.nonzero()[0]
            before = np.where(offsets > 0, end + offsets - 1, start + length - 1)
            note(end + offsets, before, index * num_answers + k, np.arange(len(offsets)) < shortest)
            end += len(answer.ids)
            used += len(answer.ids)
        segments.append(Segment(slice(start, start + length), tuple(spans)))

    def tensor(array: NDArray[Any]) -> Tensor:
        return put(torch.from_numpy(array), device)

    slots_N = np.concatenate(slots)
    return Batch(
        positions=tuple(positions),
        input_ids_ST=tensor(ids),
        position_ids_ST=tensor(place),
        layout=Layout(tuple(segments)) if packed else None,
        predicts_N=tensor(np.concatenate(predicts)),
        targets_N=tensor(np.concatenate(targets)),
        slot_N=tensor(slots_N),
        of_answers_A=tensor(np.flatnonzero(slots_N < len(members) * num_answers)),
        shared_N=tensor(np.concatenate(shared)),
        answer_lengths=tuple(tuple(answer.num_counted for answer in example.answers) for example in members),
        num_answers=num_answers,
        num_tokens=used,
        is_filler=is_filler,
    )
