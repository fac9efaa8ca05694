"""Pairs to padded micro-batches of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.data.pairs import Pair


@dataclass(frozen=True)
class Batch:
    """Sequences prompt + answer of n pairs, padded on the right: the chosen ones, then the rejected.

    There is no attention mask: attention is causal, so no counted token ever sees padding.

    S is the number of sequences (n or 2n), T the padded length. A counted token at position t is predicted from the
    hidden state at t - 1: `predicts_ST` marks those positions, `targets_N` are the tokens, `owner_N` the sequence
    each belongs to, in the same order.
    """

    positions: tuple[int, ...]  # of its pairs in the list the batches were made from
    input_ids_ST: Tensor
    predicts_ST: Tensor
    targets_N: Tensor
    owner_N: Tensor
    paired: bool
    num_tokens: int  # without padding


def micro_batches(pairs: Sequence[Pair], max_tokens: int, device: torch.device) -> Iterator[Batch]:
    """Group pairs of like length so that each batch pads to at most `max_tokens`; a longer pair goes alone."""
    by_length = sorted(range(len(pairs)), key=lambda i: -pairs[i].max_length)
    start = 0
    while start < len(by_length):
        longest = pairs[by_length[start]]
        size = max(1, max_tokens // (longest.max_length * len(longest.answers)))
        yield collate(pairs, by_length[start : start + size], device)
        start += size


def collate(pairs: Sequence[Pair], positions: Sequence[int], device: torch.device) -> Batch:
    members = [pairs[i] for i in positions]
    paired = len(members[0].answers) == 2
    sequences = [(pair.prompt, pair.chosen) for pair in members]
    if paired:
        sequences += [(pair.prompt, pair.rejected) for pair in members]
    length = max(len(prompt) + len(answer.ids) for prompt, answer in sequences)

    ids = np.zeros((len(sequences), length), np.int64)
    counted = np.zeros((len(sequences), length), np.bool_)
    for row, (prompt, answer) in enumerate(sequences):
        end = len(prompt) + len(answer.ids)
        ids[row, : len(prompt)] = prompt
        ids[row, len(prompt) : end] = answer.ids
        counted[row, len(prompt) : end] = answer.mask
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
        owner_N=tensor(owner),
        paired=paired,
        num_tokens=sum(len(prompt) + len(answer.ids) for prompt, answer in sequences),
    )
