"""Log-probs of answer tokens, without ever holding the logits of a whole batch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from workers.engine import head
from workers.engine.batching import Batch
from workers.engine.models import CausalLM
from workers.losses import Logps


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
        return head.logps_of(_logits(lm, batch), batch.targets_N)
    return head.logps(lm.head, _hidden(lm.body, batch), batch.targets_N)


def token_stats(lm: CausalLM, batch: Batch) -> TokenStats:
    """Log-probs with their gradient, and the rest."""
    if lm.body is None:
        logits_NV = _logits(lm, batch)
        return TokenStats(head.logps_of(logits_NV, batch.targets_N), *head.facts_of(logits_NV, batch.targets_N))
    logps_N, facts_4N = head.logps_and_facts(lm.head, _hidden(lm.body, batch), batch.targets_N)
    return TokenStats(logps_N, *facts_4N)


def answer_logps(stats: TokenStats, batch: Batch) -> Logps:
    """Sums over each answer's tokens, in float64: differences of long sums lose no digits of single tokens."""
    sums_BK, prompt_B = _by_slot(stats.logps_N, batch)
    shared_BK, _ = _by_slot(stats.logps_N * batch.shared_N, batch)
    certainty_BK, _ = _by_slot((stats.logps_N.detach() - stats.log_sum_sq_N), batch)
    counts_BK, _ = _by_slot(torch.ones_like(stats.entropy_N), batch)
    return Logps(sums_BK, shared_BK, prompt_B, certainty_BK / counts_BK.clamp(min=1))


def reference_logps(logps_A: Tensor, batch: Batch) -> Logps:
    """The same of a model that is not trained; `logps_A` holds the answers' tokens alone."""
    slot_A, shared_A = batch.slot_N[batch.of_answers_A], batch.shared_N[batch.of_answers_A]

    def sums(values_A: Tensor) -> Tensor:
        zeros = logps_A.new_zeros(batch.num_examples * batch.num_answers, dtype=torch.float64)
        return zeros.index_add(0, slot_A, values_A.double()).view(batch.num_examples, batch.num_answers)

    return Logps(sums(logps_A), sums(logps_A * shared_A))


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
