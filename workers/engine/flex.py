"""Shared-prompt attention of a whole packed row in one kernel, for CUDA: FlexAttention (Dong et al., arXiv 2412.05496).

The row is filled up to one of few lengths, so that few kernels are compiled; what fills it sees itself alone.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import pad

from workers.engine.layout import Layout

_SHORTEST = 256
_KERNELS = 64  # lengths, windows and dtypes, with and without a gradient: past this torch would run without a kernel


def attend_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """query [1, heads, T, D]; key and value may have fewer heads. Returns [1, heads, T, D].

    On a CPU, where it only serves to check the masks, torch has no gradient of it.
    """
    length = query.shape[2]
    filling = (0, 0, 0, _padded(length) - length)
    out: Tensor = _kernel(query.device.type)(
        pad(query, filling),
        pad(key, filling),
        pad(value, filling),
        score_mod=None if softcap is None else _capped(softcap),
        block_mask=layout.once(("block mask", window), lambda: _block_mask(layout, length, window, query.device)),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out[:, :, :length]


@cache
def _kernel(device_type: str) -> Callable[..., Any]:
    kernel: Callable[..., Any] = flex_attention
    if device_type == "cuda":
        kernel = torch.compile(kernel, recompile_limit=_KERNELS)  # type: ignore[call-overload] # torch 2.13 has it
    return kernel


def _padded(length: int) -> int:
    """The next of two lengths in every doubling."""
    power = max(_SHORTEST, 1 << (length - 1).bit_length())
    return power * 3 // 4 if length <= power * 3 // 4 else power


def _block_mask(layout: Layout, length: int, window: int | None, device: torch.device) -> BlockMask:
    padded = _padded(length)
    example, branch, place = torch.full((padded,), -1), torch.zeros(padded, dtype=torch.int64), torch.arange(padded)
    example[length:] -= place[length:]  # each of the filling is an example of its own
    for index, segment in enumerate(layout.segments):
        for number, span in enumerate([segment.prompt, *segment.answers]):
            example[span], branch[span] = index, number
            start = 0 if number == 0 else segment.prompt.stop - segment.prompt.start
            place[span] = torch.arange(start, start + span.stop - span.start)
    example, branch, place = example.to(device), branch.to(device), place.to(device)

    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        ahead = place[query] - place[key]
        same = (example[query] == example[key]) & ((branch[key] == 0) | (branch[query] == branch[key]))
        near = same & (ahead >= 0)
        return near if window is None else near & (ahead < window)

    return create_block_mask(seen, None, None, padded, padded, device=device)


def _capped(softcap: float) -> Callable[..., Tensor]:
    """Scores bent by softcap * tanh(score / softcap), as in Gemma 2."""

    def bend(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return bend
