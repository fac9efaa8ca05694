"""Examples to padded micro-batches of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.data.examples import Example
from workers.losses import Facts


@dataclass(frozen=True)
class Batch:
    """Sequences prompt + answer of B examples, padded on the right: all answers of the first, then of the next.

    There is no attention mask: attention is causal, so no counted token ever sees padding.

    S is the number of sequences, T the padded length, K the largest number of answers an example has. A token of
    interest at position t is predicted from the hidden state at t - 1: `predicts_ST` marks those positions,
    `targets_N` are the tokens in that order, `slot_N` says where each belongs: example * K + answer, or B * K +
    example for a token of the prompt.
    """

    positions: tuple[int, ...]  # of its examples in the list the batches were made from
    input_ids_ST: Tensor
    predicts_ST: Tensor
    targets_N: Tensor
    slot_N: Tensor
    shared_N: Tensor  # bool: among the first tokens of an answer, as many as the example's shortest answer has
    num_answers: int  # K
    num_tokens: int  # without padding

    @property
    def num_examples(self) -> int:
        return len(self.positions)

    @property
    def of_answers_N(self) -> Tensor:
        """bool: not of a prompt."""
        return self.slot_N < self.num_examples * self.num_answers


def micro_batches(
    examples: Sequence[Example], max_tokens: int, device: torch.device, *, with_prompts: bool = False
) -> Iterator[Batch]:
    """Group examples of like length so that each batch pads to at most `max_tokens`; a longer one goes alone.

    with_prompts: the prompts' tokens, but the first of each, are of interest too.
    """
    by_length = sorted(range(len(examples)), key=lambda i: -examples[i].max_length)
    start = 0
    while start < len(by_length):
        length = examples[by_length[start]].max_length
        stop, sequences = start, 0
        while stop < len(by_length):
            sequences += len(examples[by_length[stop]].answers)
            if sequences * length > max_tokens and stop > start:
                break
            stop += 1
        yield _collate(examples, by_length[start:stop], device, with_prompts)
        start = stop


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


def _collate(examples: Sequence[Example], positions: Sequence[int], device: torch.device, with_prompts: bool) -> Batch:
    members = [examples[i] for i in positions]
    num_answers = max(len(example.answers) for example in members)
    sequences = [(row, k) for row, example in enumerate(members) for k in range(len(example.answers))]
    shape = len(sequences), max(example.max_length for example in members)

    ids = np.zeros(shape, np.int64)
    slots = np.full(shape, -1, np.int64)
    shared = np.zeros(shape, np.bool_)
    num_tokens = 0
    for s, (row, k) in enumerate(sequences):
        prompt, answer = members[row].prompt, members[row].answers[k]
        end = len(prompt) + len(answer.ids)
        num_tokens += end
        ids[s, : len(prompt)] = prompt
        ids[s, len(prompt) : end] = answer.ids
        slots[s, len(prompt) : end] = np.where(answer.mask, row * num_answers + k, -1)
        shortest = min(other.num_counted for other in members[row].answers)
        shared[s, len(prompt) : end] = answer.mask.cumsum() <= shortest
        if with_prompts and k == 0:
            slots[s, 1 : len(prompt)] = len(members) * num_answers + row
    owner, column = (slots >= 0).nonzero()
    predicts = np.zeros(shape, np.bool_)
    predicts[owner, column - 1] = True

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return Batch(
        positions=tuple(positions),
        input_ids_ST=tensor(ids),
        predicts_ST=tensor(predicts),
        targets_N=tensor(ids[owner, column]),
        slot_N=tensor(slots[owner, column]),
        shared_N=tensor(shared[owner, column]),
        num_answers=num_answers,
        num_tokens=num_tokens,
    )
