"""What each Ray Train worker runs: load, resume, step through the order, export."""

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint

from service.spec import AlignmentJob
from service.spec.evaluation import KL_BUDGET
from service.spec.reports import EventReport, MetricsReport, ProgressReport, Report
from service.spec.stages import Stage
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.device import pick_device
from workers.engine import checkpoint
from workers.engine.accumulate import Rank
from workers.engine.adapters import adapt
from workers.engine.live_reference import LiveReference
from workers.engine.models import load_model, split
from workers.engine.trainer import Trainer
from workers.errors import AttemptError
from workers.export import export
from workers.health import Alarm, HealthMonitor
from workers.reference.handover import ScoreFeed
from workers.reference.store import ReferenceStore, Score
from workers.sources import Weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerConfig:
    job: AlignmentJob
    start: Weights
    examples: Path
    export: Path  # where rank 0 leaves the trained model
    mailbox: Any  # handle of the Mailbox actor
    reference: Path | None = None  # the model, when the reference follows the policy
    store_root: Path | None = None  # None when there is no reference pass
    namespace: str = ""
    pass_state: Path | None = None


def train(config: WorkerConfig) -> AttemptError | None:
    """The train loop. A failure that a retry would only repeat is returned, not raised: Ray retries what is raised."""
    try:
        _train(config)
    except AttemptError as error:
        logger.error("training stops: %s", error)
        return error
    return None


def _train(config: WorkerConfig) -> None:
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    job = config.job
    device = pick_device()

    def tell(report: Report) -> None:
        if rank.index == 0:
            config.mailbox.put.remote(report)

    examples = ExampleFile(config.examples)
    order = TrainingOrder(job, examples.rows)
    seed = job.training.seed
    base = load_model(config.start.model, random_seed=seed if job.model.weights == "random" else None).to(device)
    model = adapt(base, job.training.method, seed, config.start.adapter)
    lm = split(base)
    trainer = Trainer(job, model, lm, order, rank, _live_reference(config, device))
    feed = _feed(config, examples, order)

    def scores(positions: list[int]) -> list[Score] | None:
        return feed.get([examples[i].key for i in positions]) if feed else None

    saved = ray.train.get_checkpoint()
    done, seen = 0, None
    if saved:
        with saved.as_directory() as directory:
            done, seen = checkpoint.load(Path(directory), trainer)
    health = HealthMonitor(job.evaluation.kl_budget or KL_BUDGET, order.num_steps, seen)
    message = f"Training goes on after step {done}" if done else "Training starts"
    tell(
        EventReport(
            type="train.started",
            stage=Stage.TRAIN,
            message=f"{message}: {order.num_steps} steps on {rank.count} worker(s), {device.type}; {lm.paths}",
            data={
                "total_steps": order.num_steps,
                "resumed_from_step": done,
                "workers": rank.count,
                "shares_prompts": lm.shares_prompts,
                "head_apart": lm.body is not None,
            },
        )
    )

    def evaluate() -> None:
        positions = order.held_out.tolist()
        values = trainer.evaluate([examples[i] for i in positions], scores(positions))
        tell(MetricsReport(step=done, split="held_out", values=values))

    every = job.evaluation.every or order.num_steps
    while done < order.num_steps:
        positions = order.step(done).tolist()
        waited_before = feed.waited_s if feed else 0.0
        batch_scores = scores(positions)
        started = time.monotonic()
        metrics = trainer.step(done, [examples[i] for i in positions], batch_scores)
        elapsed = time.monotonic() - started
        done += 1
        for alarm in health.after_step(done, metrics):
            tell(_alarm(alarm, done))
        metrics["tokens_per_s"] = metrics["tokens"] / elapsed
        metrics["pairs_per_s"] = len(positions) / elapsed
        metrics["policy_wait_s"] = feed.waited_s - waited_before if feed else 0.0
        tell(MetricsReport(step=done, values=metrics))
        tell(ProgressReport(stage=Stage.TRAIN, done=done, total=order.num_steps, unit="steps"))
        if len(order.held_out) and (done % every == 0 or done == order.num_steps):
            evaluate()
        if done % job.training.checkpoint_every == 0 and done < order.num_steps:
            _save(trainer, health, done, rank)
            tell(
                EventReport(
                    type="checkpoint.saved",
                    stage=Stage.TRAIN,
                    message=f"Checkpoint after step {done}",
                    data={"step": done},
                )
            )
    if rank.index == 0:
        export(model, config.start.model, config.export)


def _alarm(alarm: Alarm, step: int) -> EventReport:
    return EventReport(
        type="health.alarm",
        stage=Stage.TRAIN,
        message=f"{alarm.message} {alarm.advice}",
        data={"name": alarm.name, "step": step, "advice": alarm.advice, "evidence": alarm.evidence},
    )


def _live_reference(config: WorkerConfig, device: torch.device) -> LiveReference | None:
    if config.reference is None or config.job.training.reference_sync is None:
        return None
    return LiveReference(split(load_model(config.reference).to(device)), config.job.training.reference_sync)


def _feed(config: WorkerConfig, examples: ExampleFile, order: TrainingOrder) -> ScoreFeed | None:
    if config.store_root is None or config.pass_state is None:
        return None
    keys = {examples[i].key for i in order.first_visits().tolist()}
    reader = ReferenceStore(config.store_root, config.namespace).reader(keys)
    return ScoreFeed(reader, config.pass_state)


def _save(trainer: Trainer, health: HealthMonitor, done: int, rank: Rank) -> None:
    """A checkpoint through Ray Train, which keeps the newest and finds it again; a barrier over all workers."""
    if rank.index != 0:
        ray.train.report({"step": done})
        return
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.save(Path(directory), trainer, health, done)
        ray.train.report({"step": done}, checkpoint=Checkpoint.from_directory(directory))
