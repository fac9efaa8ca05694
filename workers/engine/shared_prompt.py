"""Attention over a row of packed examples: prompt, then every answer to it, then the next example.

A prompt is computed once. It attends to itself; each answer attends to its prompt and to itself, never to another
answer; positions restart at the prompt's end for each. The result is that of separate sequences, up to rounding.
Works on any transformers model that goes through its attention interface (see `workers.engine.models.split`).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "shared_prompt"


@dataclass(frozen=True)
class Segment:
    """Where an example's prompt and answers lie in the row; they follow one another."""

    prompt: slice
    answers: tuple[slice, ...]


@dataclass(frozen=True)
class Layout:
    """Of a whole row. Holds the masks that its layers share."""

    segments: tuple[Segment, ...]
    _masks: dict[Any, Tensor] = field(default_factory=dict, compare=False)

    def mask(self, num_queries: int, num_keys: int, window: int | None, like: Tensor) -> Tensor | None:
        """Additive, for the last `num_queries` of `num_keys` positions, causal; [Q, K]. None where nothing is hidden
        that causality alone does not hide."""
        if num_queries == num_keys and (window is None or window >= num_keys):
            return None
        key = (num_queries, num_keys, window, like.dtype)
        if key not in self._masks:
            distance = torch.arange(num_keys - num_queries, num_keys)[:, None] - torch.arange(num_keys)
            hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
            zeros = torch.zeros(num_queries, num_keys, dtype=like.dtype, device=like.device)
            self._masks[key] = zeros.masked_fill(hidden.to(like.device), float("-inf"))
        return self._masks[key]


def attend(
    module: nn.Module,  # noqa: ARG001 - transformers passes it
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface. query [1, heads, T, D]; key and value may have fewer heads. Returns
    [1, T, heads, D].

    layout: None is every row one sequence of its own, padded on the right at most.
    """
    assert attention_mask is None, "this attention hides by its layout alone"
    layout = layout or Layout((Segment(slice(0, query.shape[2]), ()),))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)

    def one(queries: slice, keys: Tensor, values: Tensor) -> Tensor:
        q = query[:, :, queries]
        mask = layout.mask(q.shape[2], keys.shape[2], sliding_window, q)
        if softcap is None:
            return scaled_dot_product_attention(
                q, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling, dropout_p=dropout
            )
        return _capped(q, keys, values, mask, scaling, softcap)

    pieces = []
    for segment in layout.segments:
        prompt_k, prompt_v = key[:, :, segment.prompt], value[:, :, segment.prompt]
        pieces.append(one(segment.prompt, prompt_k, prompt_v))
        for answer in segment.answers:
            keys = torch.cat([prompt_k, key[:, :, answer]], 2)
            values = torch.cat([prompt_v, value[:, :, answer]], 2)
            pieces.append(one(answer, keys, values))
    return torch.cat(pieces, 2).transpose(1, 2).contiguous(), None


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, softcap: float) -> Tensor:
    """Attention whose scores are bent by softcap * tanh(score / softcap), as in Gemma 2."""
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.full_like(scores[0, 0], float("-inf")).triu(1)
    return torch.softmax(scores + mask, -1, dtype=torch.float32).to(q.dtype) @ v


AttentionInterface.register(NAME, attend)
