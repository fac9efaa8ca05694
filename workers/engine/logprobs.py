"""Log-probs of counted answer tokens, without ever holding the logits of a whole batch."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from workers.engine.batching import Batch
from workers.engine.models import CausalLM
from workers.losses import PairCounts, PairLogps

_HEAD_CHUNK = 1024  # positions whose logits exist at one time


def token_logps(lm: CausalLM, batch: Batch) -> Tensor:
    """log p(token | all before it) for every counted token, float32, shape [N] in the order of `batch.targets_N`."""
    if lm.body is None:
        logits_NV = lm.model(input_ids=batch.input_ids_ST, use_cache=False).logits[batch.predicts_ST]
        return _gather(logits_NV, batch.targets_N)

    hidden_NH = lm.body(input_ids=batch.input_ids_ST, use_cache=False).last_hidden_state[batch.predicts_ST]
    chunks = [
        checkpoint(_head_logps, lm.head, hidden, targets, use_reentrant=False)
        if torch.is_grad_enabled()
        else _head_logps(lm.head, hidden, targets)
        for hidden, targets in zip(
            torch.split(hidden_NH, _HEAD_CHUNK), torch.split(batch.targets_N, _HEAD_CHUNK), strict=True
        )
    ]  # fmt: skip
    return torch.cat(chunks)


def pair_sums(token_logps_N: Tensor, batch: Batch) -> tuple[PairLogps, PairCounts]:
    """Sums over each answer's counted tokens, and their numbers; rejected ones are zero in a batch without any."""
    slots = len(batch.positions) * batch.num_answers
    sums_BK = token_logps_N.new_zeros(slots).index_add(0, batch.slot_N, token_logps_N).view(-1, batch.num_answers)
    counts_BK = torch.bincount(batch.slot_N, minlength=slots).to(token_logps_N.dtype).view(-1, batch.num_answers)
    if batch.num_answers == 1:
        zeros = torch.zeros_like(counts_BK[:, 0])
        return PairLogps(sums_BK[:, 0], zeros), PairCounts(counts_BK[:, 0], zeros)
    return PairLogps(sums_BK[:, 0], sums_BK[:, 1]), PairCounts(counts_BK[:, 0], counts_BK[:, 1])


def split_by_answer(token_logps_N: Tensor, batch: Batch) -> list[list[Tensor]]:
    """The token log-probs of each example's answers, on the CPU."""
    slots = len(batch.positions) * batch.num_answers
    counts = torch.bincount(batch.slot_N, minlength=slots).tolist()
    answers = torch.split(token_logps_N.cpu(), counts)
    rows = (answers[i : i + batch.num_answers] for i in range(0, slots, batch.num_answers))
    return [[answer for answer in row if len(answer)] for row in rows]


def _head_logps(head: nn.Module, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    return _gather(head(hidden_NH), targets_N)


def _gather(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    logits_NV = logits_NV.float()  # the normaliser sums over the vocabulary: never in bf16
    picked_N = logits_NV.gather(1, targets_N[:, None]).squeeze(1)
    return picked_N - torch.logsumexp(logits_NV, dim=1)
