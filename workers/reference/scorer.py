"""Scoring examples under a frozen model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from service.spec import Precision
from workers.data.examples import Example
from workers.device import pick_device
from workers.engine.adapters import put_on
from workers.engine.batching import micro_batches
from workers.engine.compiled import typed_failures
from workers.engine.logprobs import token_logps
from workers.engine.models import CausalLM, autocast, load_model, round_frozen, split, with_compiled_layers
from workers.engine.parallel import Rank
from workers.reference.store import Score
from workers.sources import Weights


def score(lm: CausalLM, examples: Sequence[Example], precision: Precision, batch_tokens: int) -> list[Score]:
    """Log-probs of every counted answer token, float32, in the order of `examples`."""
    scores = score_share(lm, examples, precision, batch_tokens, Rank())
    return [scores[i] for i in range(len(examples))]


@torch.no_grad()
def score_share(
    lm: CausalLM, examples: Sequence[Example], precision: Precision, batch_tokens: int, rank: Rank
) -> dict[int, Score]:
    """The same of the examples that fall to this worker, by their position. All workers call it together."""
    found: list[Tensor] = []
    lengths: dict[int, tuple[int, ...]] = {}
    device = lm.model.device
    for batch in micro_batches(examples, batch_tokens, device, packed=lm.shares_prompts, rank=rank):
        with autocast(device, precision), typed_failures(compiled=lm.is_compiled):
            logps_N: Tensor = lm.whole(token_logps, lm, batch)
        if not batch.is_filler:
            found.append(logps_N)
            lengths |= zip(batch.positions, batch.answer_lengths, strict=True)
    if not found:
        return {}
    # read once: the host is to prepare the next batch while the device computes
    answers = iter(torch.split(torch.cat(found).cpu(), [length for one in lengths.values() for length in one]))
    return {position: tuple(next(answers).numpy() for _ in one) for position, one in lengths.items()}


def load(weights: Weights, precision: Precision, *, compiled: bool = False) -> CausalLM:
    """A frozen model, ready to score."""
    model = load_model(weights.model)
    if weights.adapter is not None:
        put_on(model, weights.adapter)
    lm = split(model.to(pick_device()).eval().requires_grad_(False), precision=precision)
    if precision is Precision.BF16:
        round_frozen(lm.model)
    return with_compiled_layers(lm, precision) if compiled else lm
