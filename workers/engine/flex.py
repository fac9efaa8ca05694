"""Shared-prompt attention of a whole packed row in one kernel, for CUDA: FlexAttention (Dong et al., arXiv 2412.05496).

The row is filled up to one of few lengths, so that few kernels are compiled; what fills it sees itself alone.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from workers.device import put
from workers.engine.layout import AttentionKind, Layout

FAILURES = RuntimeError, ValueError  # what compilers, drivers and torch's own checks raise
MOST_KINDS = 3  # of attention in one model
NARROWEST = 16  # heads that the kernels take
_SHORTEST = 512  # so that three quarters of it are whole blocks of the mask too
_LENGTHS = 28  # up to 4,194,304 tokens, the largest `training.micro_batch_tokens`
_GRADIENTS = 3  # of all of query, key and value; of none; of some, in a first layer with adapters on these alone
_BLOCK = 128  # tokens of a block of the mask, as torch's own have by default
_AT_ONCE = 8192  # tokens whose keys are counted together; whole blocks
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
    """A kernel for each length, dtype and cap, whatever the layout and the window. With `dynamic` left open, torch
    would take the second length for a reason to compile one kernel for any, which is slower and seldom used by anybody.

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
    """As torch's create_block_mask, which holds [T, T], makes it. A token sees a part of its prompt, if it is an
    answer's, and of its own span, up to itself."""
    padded = _padded(length)
    num_blocks = -(-padded // _BLOCK)
    place = torch.arange(num_blocks * _BLOCK, dtype=torch.int32)
    first, stop, own = torch.zeros_like(place), torch.zeros_like(place), place.clone()
    own[padded:] += 1  # no token is there, and nothing is seen
    for prompt, answers in ((segment.prompt, segment.answers) for segment in layout.segments):
        own[prompt] = prompt.start
        for span in answers:
            first[span], stop[span], own[span] = prompt.start, prompt.stop, span.start
            if window is not None:  # an answer's positions go on where the prompt ends
                first[span] += (prompt.stop - prompt.start + place[span] - span.start - window + 1).clamp(min=0)
    if window is not None:
        own = torch.maximum(own, place - window + 1)
    first, stop, own, place = put(torch.stack([first, stop, own, place]), device)

    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_prompt: Tensor = (first[query] <= key) & (key < stop[query])
        of_own: Tensor = (own[query] <= key) & (key <= query)
        return of_prompt | of_own

    blocks = place[::_BLOCK]
    spans = torch.stack([first, stop, own, place + 1])
    parts = [
        _num_seen(part, blocks).view(-1, _BLOCK, num_blocks).sum(1) for part in torch.split(spans, _AT_ONCE, dim=1)
    ]
    counts = torch.cat(parts)
    partial, whole = (counts > 0) & (counts < _BLOCK**2), counts == _BLOCK**2
    return BlockMask.from_kv_blocks(
        *_in_order(partial), *_in_order(whole), BLOCK_SIZE=_BLOCK, mask_mod=seen, seq_lengths=(padded, padded)
    )


def _num_seen(spans: Tensor, blocks: Tensor) -> Tensor:
    """How many keys of each block, given by its first, each token sees, [tokens, blocks].

    spans: [4, tokens], the first key and the one after the last that it sees of its prompt, and of its own span.
    """
    first, stop, own, after = spans[:, :, None]
    of_prompt = torch.minimum(stop, blocks + _BLOCK) - torch.maximum(first, blocks)
    of_own = torch.minimum(after, blocks + _BLOCK) - torch.maximum(own, blocks)
    return of_prompt.clamp(min=0) + of_own.clamp(min=0)


def _in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and which, before the others; of one head of one row."""
    which = torch.argsort(blocks.int(), descending=True, stable=True).int()
    return blocks.sum(1, dtype=torch.int32)[None, None], which[None, None]


def _capped(softcap: float) -> Callable[..., Tensor]:
    """Scores bent by softcap * tanh(score / softcap), as in Gemma 2."""

    def bend(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return bend
