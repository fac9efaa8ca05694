"""The head: from hidden states to log-probs of tokens, a chunk of positions at a time.

The logits of a chunk are gone when the next is made, in backward too: memory grows with the vocabulary, and with the
number of positions, but not with their product. Only the products are made in the precision of autocast; what is read
off the logits is float32 (float64 for a float64 model).

Shapes: N positions, H hidden, V vocabulary, C positions of a chunk.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

_CHUNK = 1024
_CHUNK_IN_CACHE = 128  # float32 on a CPU: more time goes into reading logits over and over than into smaller products


def logps(head: nn.Module, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    """log p(target), shape [N]. Without a gradient."""
    return torch.cat([logps_of(head(hidden_NH[at]), targets_N[at]) for at in _chunks(hidden_NH)])


def logps_and_facts(head: nn.Module, hidden_NH: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """log p(target), shape [N], with a gradient, and `facts_of` them, shape [4, N]. Keeps no logits for backward."""
    if type(head) is nn.Linear:  # not a wrapper of it, as peft's, whose weights are more than `weight`
        logps_N, facts_4N = _LinearLogps.apply(  # type: ignore[no-untyped-call]
            hidden_NH, head.weight, head.bias, targets_N
        )
        return logps_N, facts_4N
    found = [_of_any_head(head, hidden_NH[at], targets_N[at]) for at in _chunks(hidden_NH)]
    return torch.cat([logps_C for logps_C, _ in found]), torch.cat([facts_4C for _, facts_4C in found], 1)


def logps_of(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """log p(target), shape [N]; autograd knows the way back."""
    logits_NV = _wide(logits_NV)
    return logits_NV.gather(1, targets_N[:, None]).squeeze(1) - torch.logsumexp(logits_NV, dim=1)


@torch.no_grad()
def facts_of(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Of the distribution p over the vocabulary, shape [4, N]: entropy in nats, log sum p^2, mean logit, and 1 where no
    token is likelier than the target."""
    return _read(_wide(logits_NV), targets_N).facts_4N


class _Reading(NamedTuple):
    logps_N: Tensor
    normaliser_N: Tensor
    facts_4N: Tensor
    probs_NV: Tensor


def _read(logits_NV: Tensor, targets_N: Tensor) -> _Reading:
    """All that is wanted of wide logits, with one exponential an element. Without a gradient."""
    with torch.autocast(logits_NV.device.type, enabled=False):  # which would make the dot products in bf16
        top_N = logits_NV.amax(1)
        probs_NV = (logits_NV - top_N[:, None]).exp_()
        total_N = probs_NV.sum(1)
        probs_NV /= total_N[:, None]
        normaliser_N = top_N + total_N.log()
        picked_N = logits_NV.gather(1, targets_N[:, None]).squeeze(1)
        entropy_N = normaliser_N - torch.linalg.vecdot(probs_NV, logits_NV)
        log_sum_sq_N = torch.linalg.vecdot(probs_NV, probs_NV).log()
        facts = [entropy_N, log_sum_sq_N, logits_NV.mean(1), (picked_N >= top_N).to(top_N.dtype)]
        return _Reading(picked_N - normaliser_N, normaliser_N, torch.stack(facts), probs_NV)


class _LinearLogps(torch.autograd.Function):
    """`logps_and_facts` of a plain linear head.

    By the hidden state, d log p(t) / d h = W[t] - sum_v p_v W[v]. With a frozen head (LoRA) this is computed at once,
    while p is at hand, and backward only scales it; otherwise backward makes the logits of each chunk again and adds to
    one gradient of the weight.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, targets_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.frozen = not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
        ctx.dtype = dtype = _dtype(hidden_NH)
        ctx.hidden_dtype = hidden_NH.dtype
        slope_NH = torch.empty_like(hidden_NH) if ctx.frozen and ctx.needs_input_grad[0] else None
        readings: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.autocast(hidden_NH.device.type, enabled=False):
            hidden_NH = hidden_NH.to(dtype)
            weight, bias = weight_VH.to(dtype), None if bias_V is None else bias_V.to(dtype)
            for at in _chunks(hidden_NH):
                reading = _read(_wide(linear(hidden_NH[at], weight, bias)), targets_N[at])
                readings.append((reading.logps_N, reading.normaliser_N, reading.facts_4N))
                if slope_NH is not None:
                    one_C = torch.ones_like(reading.logps_N)
                    slope_NH[at] = _by_logits(reading.probs_NV, targets_N[at], one_C).to(dtype) @ weight
        logps, normalisers, facts = zip(*readings, strict=True)
        if ctx.frozen:
            ctx.save_for_backward(slope_NH)
        else:
            ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, torch.cat(normalisers))
        facts_4N = torch.cat(facts, 1)
        ctx.mark_non_differentiable(facts_4N)
        return torch.cat(logps), facts_4N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logps_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.frozen:
            (slope_NH,) = ctx.saved_tensors
            return (slope_NH * by_logps_N[:, None]).to(ctx.hidden_dtype), None, None, None
        hidden_NH, weight_VH, bias_V, targets_N, normaliser_N = ctx.saved_tensors
        needs_hidden, _, needs_bias, _ = ctx.needs_input_grad
        by_hidden_NH = torch.empty_like(hidden_NH, dtype=ctx.hidden_dtype) if needs_hidden else None
        by_weight_VH = torch.zeros_like(weight_VH, dtype=by_logps_N.dtype)
        by_bias_V = torch.zeros_like(bias_V, dtype=by_logps_N.dtype) if needs_bias else None
        with torch.autocast(hidden_NH.device.type, enabled=False):
            weight, bias = weight_VH.to(ctx.dtype), None if bias_V is None else bias_V.to(ctx.dtype)
            for at in _chunks(hidden_NH, _CHUNK):
                logits_CV = _wide(linear(hidden_NH[at], weight, bias))
                probs_CV = logits_CV.sub_(normaliser_N[at, None]).exp_()
                wide_CV = _by_logits(probs_CV, targets_N[at], by_logps_N[at])
                if by_bias_V is not None:
                    by_bias_V += wide_CV.sum(0)
                by_logits_CV = wide_CV.to(ctx.dtype)
                if by_hidden_NH is not None:
                    by_hidden_NH[at] = by_logits_CV @ weight
                if by_weight_VH.dtype == ctx.dtype:
                    by_weight_VH.addmm_(by_logits_CV.T, hidden_NH[at])
                else:
                    by_weight_VH += by_logits_CV.T @ hidden_NH[at]
        return by_hidden_NH, by_weight_VH, by_bias_V, None


def _by_logits(probs_NV: Tensor, targets_N: Tensor, by_logps_N: Tensor) -> Tensor:
    """The gradient by the logits, (onehot - p) times that by the log-probs; in place of p."""
    probs_NV.mul_(-by_logps_N[:, None])
    return probs_NV.scatter_add_(1, targets_N[:, None], by_logps_N[:, None])


def _of_any_head(head: nn.Module, hidden_CH: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """The same of one chunk and of any module, by calling it again in backward."""
    facts: list[Tensor] = []

    def run(hidden_CH: Tensor) -> Tensor:
        logits_CV = head(hidden_CH)
        if not facts:  # the second time nothing but the gradient is wanted
            facts.append(facts_of(logits_CV, targets_C))
        return logps_of(logits_CV, targets_C)

    logps_C = checkpoint(run, hidden_CH, use_reentrant=False) if torch.is_grad_enabled() else run(hidden_CH)
    return logps_C, facts[0]


def _chunks(hidden_NH: Tensor, size: int | None = None) -> Iterator[slice]:
    """At least one, which may be empty."""
    if size is None:
        in_cache = hidden_NH.device.type == "cpu" and _dtype(hidden_NH) is torch.float32
        size = _CHUNK_IN_CACHE if in_cache else _CHUNK
    for start in range(0, max(1, len(hidden_NH)), size):
        yield slice(start, start + size)


def _dtype(hidden_NH: Tensor) -> torch.dtype:
    """Of the head's products."""
    device = hidden_NH.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NH.dtype


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
