"""Attention over a row of packed examples: prompt, then every answer to it, then the next example.

A prompt is computed once. It attends to itself; each answer attends to its prompt and to itself, never to another
answer; positions restart at the prompt's end for each. The result is that of separate sequences, up to rounding.
Works on any transformers model that goes through its attention interface (see `workers.engine.models.split`).
"""

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from workers.engine import flex
from workers.engine.layout import AttentionKind, Layout, Segment


class Attention(StrEnum):
    """The two ways to the same numbers, by their names in transformers."""

    SEGMENTS = "shared_prompt"  # a product for every prompt and answer
    ROW = "shared_prompt_in_one_kernel"  # FlexAttention over the row, if `workers.engine.kernel_check` lets it


class MasksItself(Exception):
    """The model hides more than its layout says, by a mask of its own."""


def attend(
    module: nn.Module,  # noqa: ARG001 - transformers passes it
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface. query [1, heads, T, D]; key and value may have fewer heads, and values another
    width. Returns [1, T, heads, width of values].

    layout: None is every row one sequence of its own, padded on the right at most. options: see `_noted`.
    Raises MasksItself.
    """
    if attention_mask is not None:
        raise MasksItself
    query, key, value = (_as_autocast(one) for one in (query, key, value))
    layout = layout or Layout((Segment(slice(0, query.shape[2]), ()),))
    return in_segments(query, key, value, layout, _noted(layout, query, key, value, **options), dropout), None


def attend_in_one_kernel(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """The same, but for rows that are no layout's, and outside of bf16, by FlexAttention.

    Where it fails in a row that only tries it, segments take its place: other workers may be amid the same pass, and
    those with slices of a model wait for each other at its next layer.
    """
    query, key, value = (_as_autocast(one) for one in (query, key, value))
    if attention_mask is not None or layout is None or not _in_one_kernel(query, dropout):
        return attend(module, query, key, value, attention_mask, layout=layout, dropout=dropout, **options)
    kind = _noted(layout, query, key, value, **options)
    try:
        return flex.attend_row(query, key, value, layout, kind).transpose(1, 2), None
    except flex.FAILURES as error:
        if layout.failures is None:
            raise
        layout.failures.append(flex.in_words(error))
        return in_segments(query, key, value, layout, kind), None


def _noted(
    layout: Layout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> AttentionKind:
    """What the layer asks for, which the layout remembers."""
    heads, widths = (query.shape[1], key.shape[1]), (query.shape[3], value.shape[3])
    kind = AttentionKind(*heads, *widths, scaling, sliding_window, softcap)
    layout.kinds.add(kind)
    return kind


def in_segments(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, kind: AttentionKind, dropout: float = 0.0
) -> Tensor:
    """Shapes as of `attend`, all in one dtype."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and query.device.type != "cpu":  # only some of the kernels elsewhere can share heads
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)

    def one(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        mask = _mask(layout, q.shape[2], keys.shape[2], kind.window, q)
        if kind.softcap is not None:
            return _capped(q, keys, values, mask, kind.scaling, kind.softcap).transpose(1, 2)
        return scaled_dot_product_attention(
            q,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            scale=kind.scaling,
            dropout_p=dropout,
            enable_gqa=q.shape[1] != keys.shape[1],
        ).transpose(1, 2)

    # split first: the gradient of a slice is as long as what it was cut from
    sizes = [[_length(span) for span in (segment.prompt, *segment.answers)] for segment in layout.segments]
    examples = zip(
        sizes, *(torch.split(values, [sum(one) for one in sizes], 2) for values in (query, key, value)), strict=True
    )
    pieces = []
    for (prompt, *answers), example_q, example_k, example_v in examples:
        first = prompt + sum(answers[:1])  # the first answer is what follows the prompt
        first_q, *queries = example_q.split([first, *answers[1:]], 2)
        pieces.append(one(first_q, example_k[:, :, :first], example_v[:, :, :first]))
        _, *keys = example_k.split([first, *answers[1:]], 2)
        _, *values = example_v.split([first, *answers[1:]], 2)
        for q, k, v in zip(queries, keys, values, strict=True):
            with_prompt = (torch.cat([whole[:, :, :prompt], own], 2) for whole, own in ((example_k, k), (example_v, v)))
            pieces.append(one(q, *with_prompt))
    return torch.cat(pieces, 1)


def _length(span: slice) -> int:
    length: int = span.stop - span.start
    return length


def _in_one_kernel(query: Tensor, dropout: float) -> bool:
    """Not in float32, in which a model is checked too."""
    return query.dtype is torch.bfloat16 and dropout == 0


def _as_autocast(values: Tensor) -> Tensor:
    """Cast once what autocast would cast for every segment, and for FlexAttention not at all."""
    device = values.device.type
    return values.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else values


def _mask(layout: Layout, num_queries: int, num_keys: int, window: int | None, like: Tensor) -> Tensor | None:
    """Additive, for the last `num_queries` of `num_keys` positions, causal; [Q, K]. None where nothing is hidden that
    causality alone does not hide."""
    if num_queries == num_keys and (window is None or window >= num_keys):
        return None

    def make() -> Tensor:
        places = torch.arange(num_keys, device=like.device)
        distance = places[num_keys - num_queries :, None] - places
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        zeros = torch.zeros(num_queries, num_keys, dtype=like.dtype, device=like.device)
        return zeros.masked_fill(hidden, float("-inf"))

    return layout.once((num_queries, num_keys, window, like.dtype), make)


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, softcap: float) -> Tensor:
    """Attention whose scores are bent by softcap * tanh(score / softcap), as in Gemma 2."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.full_like(scores[0, 0], float("-inf")).triu(1)
    return torch.softmax(scores + mask, -1, dtype=torch.float32).to(q.dtype) @ v


# A compiled layer's graph ends where it comes here: what follows would be another graph for every layout
for _name, _attend in ((Attention.SEGMENTS, attend), (Attention.ROW, attend_in_one_kernel)):
    AttentionInterface.register(_name, torch.compiler.disable(_attend))  # type: ignore[no-untyped-call] # of torch
