"""Log-probs of answer tokens, without ever holding the logits of a whole batch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from workers.engine.batching import Batch
from workers.engine.models import CausalLM
from workers.losses import Logps

_HEAD_CHUNK = 1024  # positions whose logits exist at one time


class TokenStats(NamedTuple):
    """What a model says of each token of interest, float32, in the order of `Batch.targets_N`.

    Only `logps_N` carries a gradient; the rest is what the metrics and WPO need of the whole distribution p.
    """

    logps_N: Tensor  # log p(token | all before it)
    entropy_N: Tensor  # -sum p log p, nats
    log_sum_sq_N: Tensor  # log sum p^2
    mean_logit_N: Tensor  # over the vocabulary
    is_top_N: Tensor  # 1 where no token is likelier


def token_logps(lm: CausalLM, batch: Batch) -> Tensor:
    """log p(token | all before it), float32, shape [N] in the order of `batch.targets_N`. Without a gradient."""
    if lm.body is None:
        return _logps(_logits(lm, batch).float(), batch.targets_N)
    hidden_NH = _hidden(lm.body, batch)
    chunks = zip(torch.split(hidden_NH, _HEAD_CHUNK), torch.split(batch.targets_N, _HEAD_CHUNK), strict=True)
    return torch.cat([_logps(lm.head(hidden).float(), targets) for hidden, targets in chunks])


def token_stats(lm: CausalLM, batch: Batch) -> TokenStats:
    """Log-probs with their gradient, and the rest."""
    if lm.body is None:
        stats: list[Tensor] = []
        logps_N = _logps_noting(_logits(lm, batch).float(), batch.targets_N, stats)
        return TokenStats(logps_N, *stats[0])
    hidden_NH = _hidden(lm.body, batch)
    chunks = [
        _head_stats(lm.head, hidden, targets)
        for hidden, targets in zip(
            torch.split(hidden_NH, _HEAD_CHUNK), torch.split(batch.targets_N, _HEAD_CHUNK), strict=True
        )
    ]
    return TokenStats(torch.cat([logps for logps, _ in chunks]), *torch.cat([stats for _, stats in chunks], 1))


def answer_logps(stats: TokenStats, batch: Batch) -> Logps:
    """Sums over each answer's tokens, in float64: differences of long sums lose no digits of single tokens."""
    sums_BK, prompt_B = _by_slot(stats.logps_N, batch)
    shared_BK, _ = _by_slot(stats.logps_N * batch.shared_N, batch)
    certainty_BK, _ = _by_slot((stats.logps_N.detach() - stats.log_sum_sq_N), batch)
    counts_BK, _ = _by_slot(torch.ones_like(stats.entropy_N), batch)
    return Logps(sums_BK, shared_BK, prompt_B, certainty_BK / counts_BK.clamp(min=1))


def reference_logps(logps_N: Tensor, batch: Batch) -> Logps:
    """The same of a model that is not trained; `logps_N` holds the answers' tokens alone, in their order."""
    slot_N, shared_N = batch.slot_N[batch.of_answers_N], batch.shared_N[batch.of_answers_N]

    def sums(values_N: Tensor) -> Tensor:
        zeros = logps_N.new_zeros(batch.num_examples * batch.num_answers, dtype=torch.float64)
        return zeros.index_add(0, slot_N, values_N.double()).view(batch.num_examples, batch.num_answers)

    return Logps(sums(logps_N), sums(logps_N * shared_N))


def split_by_answer(token_logps_N: Tensor, batch: Batch) -> list[list[Tensor]]:
    """The token log-probs of each example's answers, on the CPU."""
    slots = batch.num_examples * batch.num_answers
    counts = torch.bincount(batch.slot_N, minlength=slots).tolist()
    answers = torch.split(token_logps_N.cpu(), counts)
    rows = (answers[i : i + batch.num_answers] for i in range(0, slots, batch.num_answers))
    return [[answer for answer in row if len(answer)] for row in rows]


def _inputs(batch: Batch) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": batch.input_ids_ST, "use_cache": False}
    if batch.layout is not None:
        inputs |= {"position_ids": batch.position_ids_ST, "layout": batch.layout}
    return inputs


def _hidden(body: nn.Module, batch: Batch) -> Tensor:
    hidden_STH: Tensor = body(**_inputs(batch)).last_hidden_state
    return hidden_STH.flatten(0, 1)[batch.predicts_N]


def _logits(lm: CausalLM, batch: Batch) -> Tensor:
    """Of a model that is run whole: all at one time, but in a packed row of the positions of interest alone."""
    if batch.layout is None:
        return lm.model(**_inputs(batch)).logits.flatten(0, 1)[batch.predicts_N]  # type: ignore[no-any-return]
    return lm.model(**_inputs(batch), logits_to_keep=batch.predicts_N).logits[0]  # type: ignore[no-any-return]


def _by_slot(values_N: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sums per answer [B, K] and per prompt [B]."""
    answers = batch.num_examples * batch.num_answers
    zeros = values_N.new_zeros(answers + batch.num_examples, dtype=torch.float64)
    sums = zeros.index_add(0, batch.slot_N, values_N.double())
    return sums[:answers].view(batch.num_examples, batch.num_answers), sums[answers:]


def _head_stats(head: nn.Module, hidden_NH: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs [N], and the other fields of `TokenStats` stacked. In backward the logits are computed again."""
    noted: list[Tensor] = []

    def logps(hidden_NH: Tensor) -> Tensor:
        logits_NV = head(hidden_NH).float()
        return _logps(logits_NV, targets_N) if noted else _logps_noting(logits_NV, targets_N, noted)

    grad = torch.is_grad_enabled()
    logps_N = checkpoint(logps, hidden_NH, use_reentrant=False) if grad else logps(hidden_NH)
    return logps_N, noted[0]


def _logps(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """float32 throughout: the normaliser sums over the vocabulary."""
    return logits_NV.gather(1, targets_N[:, None]).squeeze(1) - torch.logsumexp(logits_NV, dim=1)


def _logps_noting(logits_NV: Tensor, targets_N: Tensor, noted: list[Tensor]) -> Tensor:
    """The same, and the other fields of `TokenStats`, stacked, put into `noted`."""
    picked_N = logits_NV.gather(1, targets_N[:, None]).squeeze(1)
    normaliser_N = torch.logsumexp(logits_NV, dim=1)
    with torch.no_grad():
        probs_NV = torch.exp(logits_NV - normaliser_N[:, None])
        entropy_N = normaliser_N - torch.linalg.vecdot(probs_NV, logits_NV)
        log_sum_sq_N = torch.linalg.vecdot(probs_NV, probs_NV).log()
        is_top_N = (picked_N >= logits_NV.amax(1)).float()
        noted.append(torch.stack([entropy_N, log_sum_sq_N, logits_NV.mean(1), is_top_N]))
    return picked_N - normaliser_N
