"""What a training worker, a scorer and an attempt do to a tiny model, without Ray."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from service.spec import AlignmentJob, Precision, Storage
from service.spec.rows import Row
from tests.encoding import RowEncoder
from workers.data.examples import Example
from workers.data.order import TrainingOrder
from workers.engine.adapters import put_on
from workers.engine.checkpoint import Checkpoints
from workers.engine.models import load_model, split
from workers.engine.parallel import Rank
from workers.engine.policy import load_policy
from workers.engine.trainer import Trainer
from workers.export import export
from workers.health import HealthMonitor
from workers.reference.scorer import score
from workers.reference.store import Score
from workers.sources import Weights, policy_weights, reference_weights

PAIRS = 16
SIGMOID = [{"type": "sigmoid"}]
SFT = [{"type": "sft"}]
FIRST, SECOND = "job-" + "1" * 21, "job-" + "2" * 21


def make_pairs(tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    encode = RowEncoder(tokenizer, max_length=512)
    return [encode(Row(i, f"What is {i}? " * (1 + i % 4), (f"It is {i}. " * (1 + i % 3), "No."))) for i in range(PAIRS)]


def make_job(
    model: Path | str = "/m", losses: list[dict[str, Any]] = SIGMOID, method: dict[str, Any] | None = None, **top: Any
) -> AlignmentJob:
    return AlignmentJob.model_validate(
        {
            "model": str(model),
            "data": {"train": "file-" + "0" * 21},
            "losses": losses,
            "training": {
                "batch_size": 8,
                "epochs": 3,
                "learning_rate": 5e-3,
                "warmup_ratio": 0,
                "precision": "float32",
                "method": method or {"type": "full"},
            },
            "evaluation": {"held_out_fraction": 0},
        }
        | top
    )


def lora(**options: Any) -> dict[str, Any]:
    return {"type": "lora", "rank": 4, "alpha": 16} | options


class Run:
    """What a training worker does, without Ray."""

    def __init__(self, job: AlignmentJob, start: Weights) -> None:
        policy = load_policy(job, start, Rank(), torch.device("cpu"))
        self.start = start
        self.model = policy.model
        self.order = TrainingOrder(job, range(PAIRS))
        self.trainer = Trainer(job, policy.model, policy.lm, self.order, Rank())

    def steps(self, start: int, stop: int, pairs: list[Example], scores: list[Score] | None) -> list[float]:
        losses = []
        for step in range(start, stop):
            at = self.order.step(step)
            chosen = [scores[i] for i in at] if scores is not None else None
            losses.append(self.trainer.step(step, [pairs[i] for i in at], chosen)["loss"])
        return losses

    def logits(self, pairs: list[Example]) -> torch.Tensor:
        return logits(self.model, pairs)


def logits(model: torch.nn.Module, pairs: list[Example]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor(pairs[3].prompt, dtype=torch.int64)[None]).logits
    return found


def reference_scores(weights: Weights, pairs: list[Example], precision: Precision = Precision.FLOAT32) -> list[Score]:
    """What a scorer of the reference pool does."""
    model: PreTrainedModel = load_model(weights.model)
    if weights.adapter:
        put_on(model, weights.adapter)
    return score(split(model.eval()), pairs, precision, 1024)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def save(directory: Path, trainer: Trainer, steps_done: int) -> None:
    checkpoints = Checkpoints(directory, 2, Rank())
    checkpoints.save(trainer, HealthMonitor(1, 6), steps_done)
    checkpoints.wait()


def load(directory: Path, trainer: Trainer) -> int:
    """How many steps were done."""
    return Checkpoints(directory, 2, Rank()).load_newest(trainer).steps_done


class Storehouse:
    """Publishes what a job trains, as the attempt does."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(root)

    def run(self, job: AlignmentJob, job_id: str, pairs: list[Example], steps: int) -> list[float]:
        start = policy_weights(job, self.storage)
        scores = (
            reference_scores(reference_weights(job, self.storage), pairs, job.training.precision)
            if job.needs_reference
            else None
        )
        run = Run(job, start)
        losses = run.steps(0, steps, pairs, scores)
        self.storage.model(job_id).parent.mkdir(parents=True, exist_ok=True)
        export(run.model, start.model, self.storage.model(job_id))
        return losses
