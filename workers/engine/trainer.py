"""The training step: forward, loss, backward over micro-batches, one update. Knows nothing of Ray or of files."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from service.spec import AlignmentJob
from workers.data.examples import Example
from workers.data.order import TrainingOrder
from workers.engine.accumulate import Accumulator, Baselines
from workers.engine.adapters import LoraDropout
from workers.engine.compiled import layers_of, typed_failures
from workers.engine.live_reference import LiveReference
from workers.engine.models import CausalLM, trainable
from workers.engine.optimizer import learning_rate, make_optimizer
from workers.engine.parallel import Rank
from workers.errors import AttemptError
from workers.reference.store import Score


class Trainer:
    """Holds the policy and its optimizer; `step` makes one update over `batch_size` examples of all workers.

    The model's own dropout stays off, as in every published DPO recipe: but for dropout of adapters, a step depends on
    nothing but weights, examples and scores.
    """

    def __init__(
        self,
        job: AlignmentJob,
        model: nn.Module,
        lm: CausalLM,
        order: TrainingOrder,
        rank: Rank,
        live_reference: LiveReference | None = None,
    ) -> None:
        self._job = job
        self._lm = lm
        self._order = order
        self._rank = rank
        self.live_reference = live_reference
        self.baselines: Baselines = {}
        self.parameters = trainable(model)
        self.optimizer = make_optimizer(job, self.parameters)
        model.eval()
        self._dropout = LoraDropout(model, job.training.method, job.training.seed, rank.index)
        if job.training.gradient_checkpointing:
            layers = layers_of(lm.model)
            if not layers:
                raise AttemptError(
                    "checkpointing_unsupported",
                    f"training.gradient_checkpointing: transformers' {type(lm.model).__name__} has no layers that can "
                    "be computed again. Leave it out, and lower training.micro_batch_tokens to save memory.",
                )
            for layer in layers:
                _recompute(layer)

    def step(self, step: int, examples: Sequence[Example], scores: Sequence[Score] | None) -> dict[str, float]:
        """Update on the examples of one optimizer step, in training order and the same for every worker.

        Returns the metrics of the step, taken before the update. Raises AttemptError before the update is made, so that
        the weights stay good: `non_finite_loss`, and `compile_failed` as `typed_failures`.
        """
        rate = learning_rate(self._job, step, self._order.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self._dropout.during(step):
            metrics, baselines = self._accumulate(examples, scores)
        norm = _whole(nn.utils.clip_grad_norm_(self.parameters.values(), self._job.training.max_grad_norm)).item()
        if not math.isfinite(metrics["loss"]) or not math.isfinite(norm):
            raise AttemptError(
                "non_finite_loss",
                f"Loss {metrics['loss']} with gradient norm {norm} at step {step + 1}. A lower learning_rate or "
                "precision float32 mostly helps.",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.baselines = baselines
        if self.live_reference:
            self.live_reference.after_step(step + 1, self.parameters)
        return metrics | {"grad_norm": norm, "learning_rate": rate, "epoch": self._order.epoch_at(step + 1)}

    def evaluate(self, examples: Sequence[Example], scores: Sequence[Score] | None) -> dict[str, float]:
        """The same metrics on other examples, taken as one step, without an update."""
        with torch.no_grad():
            return self._accumulate(examples, scores)[0]

    def _accumulate(
        self, examples: Sequence[Example], scores: Sequence[Score] | None
    ) -> tuple[dict[str, float], Baselines]:
        accumulator = Accumulator(
            self._job, self._lm, self._rank, self._dropout, self.live_reference, examples, scores, self.baselines
        )
        with typed_failures(compiled=self._job.training.compile):
            return accumulator.run()


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _recompute(layer: nn.Module) -> None:
    """Compute the layer's activations again in backward. transformers' own way needs training mode, in which layers
    drop."""
    forward = layer.forward

    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    layer.forward = checkpointed
