"""Scoring pairs under a frozen model: a pure loop, and the Ray actor that runs it on the reference pool."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from service.spec import Precision
from workers.data.pairs import Pair, PairFile
from workers.device import pick_device
from workers.engine.batching import micro_batches
from workers.engine.logprobs import split_by_answer, token_logps
from workers.engine.models import CausalLM, autocast, load_model, split
from workers.reference.store import PairScore, ReferenceStore


@dataclass(frozen=True)
class ScorerConfig:
    model: Path
    pairs: Path
    store_root: Path
    namespace: str
    precision: Precision
    batch_tokens: int


@torch.inference_mode()
def score(lm: CausalLM, pairs: Sequence[Pair], precision: Precision, batch_tokens: int) -> list[PairScore]:
    """Log-probs of every counted answer token, float32, in the order of `pairs`."""
    device = lm.model.device
    scores: dict[int, PairScore] = {}
    for batch in micro_batches(pairs, batch_tokens, device):
        with autocast(device, precision):
            logps = split_by_answer(token_logps(lm, batch), batch)
        half = len(batch.positions)
        for i, position in enumerate(batch.positions):
            rejected = logps[half + i] if batch.paired else logps[i].new_empty(0)
            scores[position] = PairScore(logps[i].numpy(), rejected.numpy())
    return [scores[i] for i in range(len(pairs))]


class Scorer:
    """One worker of the reference pool. Each call scores one window of pairs and commits it as one shard."""

    def __init__(self, config: ScorerConfig) -> None:
        self._config = config
        self._pairs = PairFile(config.pairs)
        self._store = ReferenceStore(config.store_root, config.namespace)
        model = load_model(config.model).to(pick_device()).eval().requires_grad_(False)
        self._lm = split(model)

    def ready(self) -> None:
        """Returns when the model is loaded."""

    def score(self, positions: Sequence[int]) -> int:
        """Score and commit the pairs at these positions; return their number."""
        pairs = [self._pairs[i] for i in positions]
        scores = score(self._lm, pairs, self._config.precision, self._config.batch_tokens)
        self._store.commit((pair.key, one) for pair, one in zip(pairs, scores, strict=True))
        return len(pairs)
