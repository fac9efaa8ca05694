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

from workers.engine.layout import AttentionKind, Layout

FAILURES = RuntimeError, ValueError  # what compilers, drivers and torch's own checks raise
MOST_KINDS = 3  # of attention in one model
NARROWEST = 16  # heads that the kernels take
_SHORTEST = 512  # so that three quarters of it are whole blocks of the mask too
_LENGTHS = 28  # up to 4,194,304 tokens, the largest `training.micro_batch_tokens`
_GRADIENTS = 3  # of all of query, key and value; of none; of some, in a first layer with adapters on these alone
_REASON = 300  # characters of what a compiler says; all of it is long
_KERNELS = _LENGTHS * MOST_KINDS * _GRADIENTS  # fewer than the 256 of torch's accumulated_recompile_limit


def attend_row(query: Tensor, key: Tensor, value: Tensor, layout: Layout, kind: AttentionKind) -> Tensor:
    """query [1, heads, T, D]; key and value may have fewer heads, and values another width. Returns [1, heads, T, width
    of values].

    On a CPU, where it only serves to check the masks, torch has no gradient of it.
    """
    length = query.shape[2]
    filling = (0, 0, 0, _padded(length) - length)
    # contiguous: where nothing is to be filled, strides of their own would be one more kernel
    query, key, value = (pad(one, filling).contiguous() for one in (query, key, value))
    out: Tensor = _kernel(query.device.type)(
        query,
        key,
        value,
        score_mod=None if kind.softcap is None else _capped(kind.softcap),
        block_mask=layout.once(
            ("block mask", kind.window), lambda: _block_mask(layout, length, kind.window, query.device)
        ),
        scale=kind.scaling,
        enable_gqa=kind.num_heads != kind.num_kv_heads,
    )
    return out[:, :, :length]


def in_words(failure: Exception) -> str:
    return f"{type(failure).__name__}: {' '.join(str(failure).split())[:_REASON]}"


@cache
def _kernel(device_type: str) -> Callable[..., Any]:
    if device_type == "cuda":
        return compiled()
    return flex_attention


def compiled(backend: str | Callable[..., Any] = "inductor") -> Callable[..., Any]:
    """A kernel for each length, window and dtype, whatever the layout: with `dynamic` left open, torch would take the
    second length for a reason to compile one kernel for any, which is slower and seldom used by anybody.

    With `fullgraph` torch raises FailOnRecompileLimitHit past the limit, where it would otherwise run without a kernel,
    and hold all scores of a row, in silence.
    """
    compiler: Callable[..., Callable[..., Any]] = torch.compile  # its overloads do not name recompile_limit
    return compiler(flex_attention, backend=backend, dynamic=False, fullgraph=True, recompile_limit=_KERNELS)


def _padded(length: int) -> int:
    """The next of two lengths in every doubling."""
    power = max(_SHORTEST, 1 << (length - 1).bit_length())
    return power * 3 // 4 if length <= power * 3 // 4 else power


def _block_mask(layout: Layout, length: int, window: int | None, device: torch.device) -> BlockMask:
    padded = _padded(length)
    place = torch.arange(padded, dtype=torch.int32)  # the mask is made of [padded, padded] of these
    example, branch = torch.full_like(place, -1), torch.zeros_like(place)
    example[length:] -= place[length:]  # each of the filling is an example of its own
    for index, segment in enumerate(layout.segments):
        for number, span in enumerate([segment.prompt, *segment.answers]):
            example[span], branch[span] = index, number
            start = 0 if number == 0 else segment.prompt.stop - segment.prompt.start
            place[span] = torch.arange(start, start + span.stop - span.start, dtype=torch.int32)
    example, branch, place = (one.to(device, non_blocking=True) for one in (example, branch, place))

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
