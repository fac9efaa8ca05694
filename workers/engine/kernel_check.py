"""Whether FlexAttention works for a model on this device: tried, forward and backward, before anything relies on it."""

from collections.abc import Collection

import torch
from torch import Tensor

from service.spec import Precision
from workers.engine import flex
from workers.engine.layout import AttentionKind, Layout, Segment
from workers.engine.shared_prompt import in_segments

_TOLERANCE = 0.05  # of the largest number: bfloat16 rounds each by 0.4 %, and a wrong mask gives others altogether
Inputs = tuple[Tensor, Tensor, Tensor]  # query, key, value


def kernels_are_for(device: torch.device, precision: Precision) -> bool:
    """On a CPU products segment by segment beat one large mask, and in float32 the kernels' tiles do not fit every
    card."""
    return device.type == "cuda" and precision is Precision.BF16


def why_not_in_one_kernel(kinds: Collection[AttentionKind], device: torch.device, *, trains: bool) -> str | None:
    """What keeps such layers from FlexAttention on this device; None if every kind of them was tried and gave the
    numbers of segments.

    Called under the autocast that the model runs in. trains: whether gradients are wanted.
    """
    if len(kinds) > flex.MOST_KINDS:
        return f"the layers ask for {len(kinds)} kinds of attention, too many to compile"
    for kind in kinds:
        if (narrow := min(kind.width, kind.value_width)) < flex.NARROWEST:
            return f"the heads are {narrow} wide, and its kernels take {flex.NARROWEST} at least"
        try:
            wrong = _what_is_wrong(kind, device, trains=trains)
        except flex.FAILURES as error:
            return flex.in_words(error)
        if wrong:
            return f"it gives another {wrong} than attention segment by segment"
    return None


def _what_is_wrong(kind: AttentionKind, device: torch.device, *, trains: bool) -> str | None:
    inputs, slope = _made_up(kind, device)
    wide = _leaves(inputs, torch.float32)
    with torch.no_grad():
        if not _close(_in_one_kernel(inputs, kind), _in_segments(wide, kind)):
            return "result"
    if not trains:
        return None
    with torch.enable_grad():
        own = _leaves(inputs, torch.bfloat16)
        got = torch.autograd.grad(_in_one_kernel(own, kind), own, slope)
        expected = torch.autograd.grad(_in_segments(wide, kind), wide, slope.float())
    return None if all(map(_close, got, expected)) else "gradient"


def _leaves(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    query, key, value = (one.to(dtype, copy=True).requires_grad_() for one in inputs)
    return query, key, value


def _in_one_kernel(inputs: Inputs, kind: AttentionKind) -> Tensor:
    return flex.attend_row(*inputs, _layout(), kind).transpose(1, 2)


def _in_segments(inputs: Inputs, kind: AttentionKind) -> Tensor:
    with torch.autocast(inputs[0].device.type, enabled=False):
        return in_segments(*inputs, _layout(), kind)


def _layout() -> Layout:
    """A new one for every use, since it keeps masks; no whole blocks, and a row that has to be filled up."""
    return Layout(
        (
            Segment(slice(0, 90), (slice(90, 150), slice(150, 185))),
            Segment(slice(185, 200), (slice(200, 290),)),
        )
    )


def _made_up(kind: AttentionKind, device: torch.device) -> tuple[Inputs, Tensor]:
    """Query, key and value of that layout, and the gradient by what attention makes of them."""
    draw = torch.Generator(device).manual_seed(0)

    def some(heads: int, width: int) -> Tensor:
        return torch.randn(1, heads, 290, width, generator=draw, device=device, dtype=torch.bfloat16)

    query, key = some(kind.num_heads, kind.width), some(kind.num_kv_heads, kind.width)
    value, slope = some(kind.num_kv_heads, kind.value_width), some(kind.num_heads, kind.value_width)
    return (query, key, value), slope.transpose(1, 2)


def _close(got: Tensor, expected: Tensor) -> bool:
    return bool((got.float() - expected).abs().max() <= _TOLERANCE * expected.abs().max())
