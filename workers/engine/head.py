"""The head: from hidden states to log-probs of tokens, a chunk of positions at a time.

The logits of a chunk are gone when the next is made, in backward too: memory grows with the vocabulary, and with the
number of positions, but not with their product. Only the products are made in the precision of autocast; what is read
off the logits is float32 (float64 for a float64 model).

Shapes: N positions, H hidden, V vocabulary, C positions of a chunk, P of a part of one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

_CHUNK = 1024
_CHUNK_IN_CACHE = 256  # on a CPU: logits are gone over several times, and of so many a cache holds a good part


@torch.no_grad()
def logps(head: nn.Module, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    """log p(target), shape [N]. Without a gradient."""
    reader = _Reader()
    return torch.cat([reader.logps(head(hidden_NH[at]), targets_N[at]) for at in _chunks(hidden_NH)])


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
    return _of_targets(torch.log_softmax(wide(logits_NV), 1), targets_N)


@torch.no_grad()
def facts_of(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Of the distribution p over the vocabulary, shape [4, N]: entropy in nats, log sum p^2, mean logit, and 1 where no
    token is likelier than the target."""
    return _Reader().read(logits_NV.to(_wide_dtype(logits_NV), copy=True), targets_N).facts_4C


class _Reading(NamedTuple):
    """Of a chunk. probs_CV: until the next is read."""

    logps_C: Tensor
    normaliser_C: Tensor
    facts_4C: Tensor
    probs_CV: Tensor


class _Reader:
    """Reads the logits of one chunk after the other, the first of which is the largest, without a gradient.

    All in the same memory: on a CPU, to be given new memory for every chunk takes longer than to read it.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def logps(self, logits_CV: Tensor, targets_C: Tensor) -> Tensor:
        return _of_targets(self._log_softmax(self._wide(logits_CV)), targets_C)

    def read(self, logits_CV: Tensor, targets_C: Tensor) -> _Reading:
        """Writes over logits that are wide."""
        with torch.autocast(logits_CV.device.type, enabled=False):  # which would make the dot products in bf16
            wide_CV = self._wide(logits_CV)
            log_probs_CV = self._log_softmax(wide_CV)
            top_C, mean_C, picked_C = wide_CV.amax(1), wide_CV.mean(1), _of_targets(wide_CV, targets_C)
            logps_C, normaliser_C = _of_targets(log_probs_CV, targets_C), top_C - log_probs_CV.amax(1)
            probs_CV = torch.exp(log_probs_CV, out=wide_CV)
            entropy_C = -torch.linalg.vecdot(probs_CV, log_probs_CV)
            log_sum_sq_C = torch.linalg.vecdot(probs_CV, probs_CV).log()
            facts = [entropy_C, log_sum_sq_C, mean_C, (picked_C >= top_C).to(top_C.dtype)]
            return _Reading(logps_C, normaliser_C, torch.stack(facts), probs_CV)

    def _wide(self, logits_CV: Tensor) -> Tensor:
        if logits_CV.dtype is _wide_dtype(logits_CV):
            return logits_CV
        return self._room("wide", logits_CV).copy_(logits_CV)

    def _log_softmax(self, wide_CV: Tensor) -> Tensor:
        return torch.log_softmax(wide_CV, 1, out=self._room("log_probs", wide_CV))

    def _room(self, name: str, like_CV: Tensor) -> Tensor:
        if name not in self._memory:
            self._memory[name] = torch.empty_like(like_CV, dtype=_wide_dtype(like_CV))
        return self._memory[name][: len(like_CV)]


def _of_targets(values_NV: Tensor, targets_N: Tensor) -> Tensor:
    return values_NV.gather(1, targets_N[:, None]).squeeze(1)


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
            reader = _Reader()
            for at in _chunks(hidden_NH):
                reading = reader.read(linear(hidden_NH[at], weight, bias), targets_N[at])
                readings.append((reading.logps_C, reading.normaliser_C, reading.facts_4C))
                if slope_NH is not None:
                    one_C = torch.ones_like(reading.logps_C)
                    slope_NH[at] = _by_logits(reading.probs_CV, targets_N[at], one_C).to(dtype) @ weight
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
            chunk_CV = weight.new_empty(min(_CHUNK, len(hidden_NH)), len(weight))
            wide_PV = torch.empty_like(chunk_CV[: _in_cache(weight)], dtype=_wide_dtype(weight))
            for at in _chunks(hidden_NH, _CHUNK):  # each adds to the gradients of all weights
                by_logits_CV = chunk_CV[: len(hidden_NH[at])]
                for part in _chunks(by_logits_CV):
                    logits_PV = linear(hidden_NH[at][part], weight, bias)
                    probs_PV = wide_PV[: len(logits_PV)].copy_(logits_PV).sub_(normaliser_N[at][part, None]).exp_()
                    _by_logits(probs_PV, targets_N[at][part], by_logps_N[at][part])
                    if by_bias_V is not None:
                        by_bias_V += probs_PV.sum(0)
                    by_logits_CV[part] = probs_PV
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


def _chunks(values: Tensor, size: int | None = None) -> Iterator[slice]:
    """Of the first dimension; by default of as many as are read fast. At least one, which may be empty."""
    size = size or _in_cache(values)
    for start in range(0, max(1, len(values)), size):
        yield slice(start, start + size)


def _in_cache(values: Tensor) -> int:
    return _CHUNK_IN_CACHE if values.device.type == "cpu" else _CHUNK


def _dtype(hidden_NH: Tensor) -> torch.dtype:
    """Of the head's products."""
    device = hidden_NH.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NH.dtype


def wide(values: Tensor) -> Tensor:
    """In float32, or in float64 if they are."""
    return values.to(_wide_dtype(values))


def _wide_dtype(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
