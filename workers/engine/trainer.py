"""The training step: forward, loss, backward over micro-batches, one update. Knows nothing of Ray or of files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn

from service.spec import AlignmentJob
from workers.data.examples import Example
from workers.data.order import TrainingOrder
from workers.engine.adapters import LoraDropout
from workers.engine.batching import Batch, micro_batches
from workers.engine.logprobs import pair_sums, token_logps
from workers.engine.metrics import StepSums, metric_names
from workers.engine.models import CausalLM, autocast, trainable
from workers.engine.optimizer import learning_rate, make_optimizer
from workers.errors import AttemptError
from workers.losses import PairLogps, StepTotals, combine
from workers.reference.store import Score


@dataclass(frozen=True)
class Rank:
    """This worker's place among all training workers."""

    index: int = 0
    count: int = 1


class Trainer:
    """Holds the policy and its optimizer; `step` makes one update over `batch_size` pairs of all workers.

    The model's own dropout stays off, as in every published DPO recipe, so without dropout of adapters a step depends
    on nothing but weights, pairs and scores.
    """

    def __init__(self, job: AlignmentJob, model: nn.Module, lm: CausalLM, order: TrainingOrder, rank: Rank) -> None:
        self._job = job
        self._lm = lm
        self._order = order
        self._rank = rank
        self._device = lm.model.device
        self._names = metric_names([loss.type for loss in job.losses])
        self.parameters = trainable(model)
        self.optimizer = make_optimizer(job, self.parameters)
        model.eval()
        self._dropout = LoraDropout(model, job.training.method, job.training.seed, rank.index)
        if job.training.gradient_checkpointing:
            lm.model.activation_checkpointing_enable({"use_reentrant": False})
            lm.model.enable_input_require_grads()  # frozen embeddings would cut the graph under LoRA
            _train_without_dropout(lm.model)

    def step(self, step: int, examples: Sequence[Example], scores: Sequence[Score] | None) -> dict[str, float]:
        """Update on the pairs of one optimizer step, in training order and the same for every worker.

        Returns the metrics of the step, taken before the update. Raises AttemptError `non_finite_loss` before the
        update is made, so that the weights stay good.
        """
        rate = learning_rate(self._job, step, self._order.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self._dropout.during(step):
            metrics = self._accumulate(examples, scores)
        if self._rank.count > 1:
            for parameter in self.parameters.values():
                if parameter.grad is None:  # a worker whose share of the step is empty
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), self._job.training.max_grad_norm))
        if not math.isfinite(metrics["loss"]) or not math.isfinite(norm):
            raise AttemptError(
                "non_finite_loss",
                f"Loss {metrics['loss']} with gradient norm {norm} at step {step + 1}. The weights before this step "
                "are in the last checkpoint. A lower learning_rate or precision float32 mostly helps.",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return metrics | {"grad_norm": norm, "learning_rate": rate, "epoch": self._order.epoch_at(step + 1)}

    def evaluate(self, examples: Sequence[Example], scores: Sequence[Score] | None) -> dict[str, float]:
        """The same metrics on other pairs, without an update."""
        with torch.no_grad():
            return self._accumulate(examples, scores)

    def _accumulate(self, examples: Sequence[Example], scores: Sequence[Score] | None) -> dict[str, float]:
        """Run this worker's share of the pairs; leaves the gradient of the step's loss, summed over no one else."""
        totals = StepTotals(len(examples), sum(example.answers[0].num_counted for example in examples))
        share = range(self._rank.index, len(examples), self._rank.count)
        sums = StepSums()
        local = [examples[i] for i in share]
        local_scores = [scores[i] for i in share] if scores is not None else None
        for batch in micro_batches(local, self._job.training.micro_batch_tokens, self._device):
            with autocast(self._device, self._job.training.precision):
                logps_N = token_logps(self._lm, batch)
            policy, counts = pair_sums(logps_N, batch)
            reference = _reference(local_scores, batch, logps_N) if local_scores is not None else None
            output, terms = combine(self._job.losses, policy, reference, counts, totals)
            if torch.is_grad_enabled():
                torch.autograd.backward(output.per_pair_B.sum() / totals.pairs)
            sums.add(output, terms, policy, num_tokens=batch.num_tokens)
        return sums.means(len(examples), self._names, self._device)


def _train_without_dropout(model: nn.Module) -> None:
    """transformers checkpoints activations in training mode only."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010 - not a Module or Tensor, which mypy expects


def _reference(scores: Sequence[Score], batch: Batch, like: Tensor) -> PairLogps:
    sums = [[float(np.sum(answer, dtype=np.float64)) for answer in scores[i]] for i in batch.positions]
    return PairLogps(like.new_tensor([one[0] for one in sums]), like.new_tensor([one[-1] for one in sums]))
