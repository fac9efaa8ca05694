"""Examples to padded micro-batches of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.data.examples import Example


@dataclass(frozen=True)
class Batch:
    """Sequences prompt + answer of B examples, padded on the right: all answers of the first, then of the next.

    There is no attention mask: attention is causal, so no counted token ever sees padding.

    S is the number of sequences, T the padded length, K the largest number of answers an example has. A counted token
    at position t is predicted from the hidden state at t - 1: `predicts_ST` marks those positions, `targets_N` are the
    tokens in that order, `slot_N` says where each belongs: example * K + answer.
    """

    positions: tuple[int, ...]  # of its examples in the list the batches were made from
    input_ids_ST: Tensor
    predicts_ST: Tensor
    targets_N: Tensor
    slot_N: Tensor
    num_answers: int  # K
    num_tokens: int  # without padding


def micro_batches(examples: Sequence[Example], max_tokens: int, device: torch.device) -> Iterator[Batch]:
    """Group examples of like length so that each batch pads to at most `max_tokens`; a longer one goes alone."""
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
        yield collate(examples, by_length[start:stop], device)
        start = stop


def collate(examples: Sequence[Example], positions: Sequence[int], device: torch.device) -> Batch:
    members = [examples[i] for i in positions]
    num_answers = max(len(example.answers) for example in members)
    sequences = [
        (example.prompt, answer, row * num_answers + k)
        for row, example in enumerate(members)
        for k, answer in enumerate(example.answers)
    ]
    length = max(len(prompt) + len(answer.ids) for prompt, answer, _ in sequences)

    ids = np.zeros((len(sequences), length), np.int64)
    counted = np.zeros((len(sequences), length), np.bool_)
    slots = np.empty(len(sequences), np.int64)
    for row, (prompt, answer, slot) in enumerate(sequences):
        end = len(prompt) + len(answer.ids)
        ids[row, : len(prompt)] = prompt
        ids[row, len(prompt) : end] = answer.ids
        counted[row, len(prompt) : end] = answer.mask
        slots[row] = slot
    owner, column = counted.nonzero()
    predicts = np.zeros_like(counted)
    predicts[owner, column - 1] = True

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return Batch(
        positions=tuple(positions),
        input_ids_ST=tensor(ids),
        predicts_ST=tensor(predicts),
        targets_N=tensor(ids[owner, column]),
        slot_N=tensor(slots[owner]),
        num_answers=num_answers,
        num_tokens=sum(len(prompt) + len(answer.ids) for prompt, answer, _ in sequences),
    )
