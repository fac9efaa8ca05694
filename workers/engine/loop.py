"""A training run: load, resume, step through the order, export. Knows nothing of Ray."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

from service.spec.evaluation import KL_BUDGET
from service.spec.reports import EventReport, MetricsReport, ProgressReport, Report
from service.spec.stages import Stage
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.device import pick_device
from workers.engine.checkpoint import Checkpoints
from workers.engine.config import RunConfig
from workers.engine.live_reference import LiveReference
from workers.engine.models import CausalLM
from workers.engine.parallel import Rank
from workers.engine.pause import PauseSignal
from workers.engine.policy import load_live_reference, load_policy
from workers.engine.trainer import Trainer
from workers.errors import Paused
from workers.export import export
from workers.health import Alarm, HealthMonitor
from workers.pairs.measure import PairMeasure, num_measured
from workers.pairs.report import leave_pairs
from workers.reference.handover import ScoreFeed
from workers.reference.on_policy import score_missing
from workers.reference.store import ReferenceStore, Score

Tell = Callable[[Report], None]


class TrainingRun:
    """One worker's part. `tell` takes its reports; the first worker alone speaks."""

    def __init__(
        self, config: RunConfig, rank: Rank, tell: Tell, pause_asked: Callable[[], bool] = lambda: False
    ) -> None:
        """Loads the model, scores where the policy is to, and loads the newest checkpoint. Raises AttemptError, and
        Paused while it scores: what is scored stays.

        pause_asked: whether training is to stop; the first worker's answer counts.
        """
        job = config.job
        self._config = config
        self._rank = rank
        self._tell: Tell = tell if rank.index == 0 else lambda _: None
        self._examples = ExampleFile(config.examples)
        self._order = TrainingOrder(job, self._examples.rows)
        device = pick_device()
        self._policy = load_policy(job, config.start, rank, device)
        live = load_live_reference(job, config.reference, rank, device) if config.reference else None
        self._trainer = Trainer(job, self._policy.model, self._policy.lm, self._order, rank, live)
        self._pause = PauseSignal(pause_asked, rank)
        if config.scores_itself:
            self._score()  # before any checkpoint is loaded
        self._feed = _feed(config, self._examples, self._order)
        self._pairs: PairMeasure | None = None
        if config.pairs is not None and num_measured(job):
            self._pairs = PairMeasure(job, self._policy.lm, self._examples, self._order, rank)
            if self._feed is None:
                self._pairs.start()
        self._waited_told = 0.0
        self._checkpoints = Checkpoints(
            config.checkpoints, job.training.checkpoints_to_keep, rank, partial(_tell_saved, self._tell)
        )
        self._done, seen, unreadable = self._checkpoints.load_newest(self._trainer)
        if unreadable:
            self._tell(_passed_over(unreadable, self._done))
        self._health = HealthMonitor(job.evaluation.kl_budget or KL_BUDGET, self._order.num_steps, seen)
        workers = "1 worker" if rank.count == 1 else f"{rank.count} workers ({job.training.parallelism})"
        place = f"{workers}, {device.type}"
        self._tell(_started(self._policy.lm, live, self._order.num_steps, self._done, place, rank))

    def run(self) -> None:
        """To the last step and the exported model. Raises AttemptError, and Paused when the first worker was asked to
        pause: then the checkpoint of this very step is on the disk."""
        if self._done and self._measures_held_out:
            self._evaluate()  # the step was saved, but what follows it may have been cut off
        while self._done < self._order.num_steps:
            positions = self._order.step(self._done).tolist()
            self._leave_if_paused(positions)
            self._step(positions)
            if self._is_saved_anyway:
                self._checkpoints.save(self._trainer, self._health, self._done)
            if self._measures_held_out:
                self._evaluate()
        self._checkpoints.wait()
        if self._pairs is not None:
            self._measure_pairs(self._pairs)
        export(self._policy.model, self._config.start.model, self._config.export, self._rank)

    @property
    def _is_last(self) -> bool:
        return self._done == self._order.num_steps

    @property
    def _is_saved_anyway(self) -> bool:
        return not self._is_last and self._done % self._config.job.training.checkpoint_every == 0

    @property
    def _measures_held_out(self) -> bool:
        """After the step that was done last."""
        every = self._config.job.evaluation.every or self._order.num_steps
        return bool(len(self._order.held_out)) and (self._is_last or self._done % every == 0)

    def _leave_if_paused(self, positions: list[int]) -> None:
        """Returns once the pairs to come next have their scores."""
        if self._pause.given(partial(self._has_scores, positions)):
            self._save_and_leave()

    def _save_and_leave(self) -> NoReturn:
        if not self._is_saved_anyway:
            self._checkpoints.save(self._trainer, self._health, self._done)
        self._checkpoints.wait()
        raise Paused(f"after step {self._done}")

    def _score(self) -> None:
        assert self._config.store_root is not None
        training = self._config.job.training
        with self._during(Stage.REFERENCE):
            score_missing(
                self._policy.lm,
                self._examples,
                self._order,
                ReferenceStore(self._config.store_root, self._config.namespace),
                training.precision,
                training.micro_batch_tokens,
                self._rank,
                self._tell,
                self._keep_on_scoring,
            )

    def _keep_on_scoring(self) -> None:
        if self._pause.given():
            raise Paused("in the reference pass")

    def _step(self, positions: list[int]) -> None:
        scores = self._scores(positions)
        started = time.monotonic()
        metrics = self._trainer.step(self._done, [self._examples[i] for i in positions], scores)
        elapsed = time.monotonic() - started
        self._done += 1
        for alarm in self._health.after_step(self._done, metrics):
            self._tell(_alarm(alarm, self._done))
        metrics["tokens_per_s"] = metrics["tokens"] / elapsed
        metrics["pairs_per_s"] = len(positions) / elapsed
        metrics["policy_wait_s"] = self._waited_s()
        self._tell(MetricsReport(step=self._done, values=metrics))
        self._tell(ProgressReport(stage=Stage.TRAIN, done=self._done, total=self._order.num_steps, unit="steps"))

    def _evaluate(self) -> None:
        positions = self._order.held_out.tolist()
        self._leave_if_paused(positions)
        values = self._trainer.evaluate([self._examples[i] for i in positions], self._scores(positions))
        values["policy_wait_s"] = self._waited_s()
        self._tell(MetricsReport(step=self._done, split="held_out", values=values))

    def _waited_s(self) -> float:
        """For scores, since it was asked last."""
        before, self._waited_told = self._waited_told, self._feed.waited_s if self._feed else 0.0
        return self._waited_told - before

    def _measure_pairs(self, pairs: PairMeasure) -> None:
        def keep_on() -> None:
            if self._pause.given():
                self._save_and_leave()

        assert self._config.pairs is not None
        with self._during(Stage.EVALUATE):
            pairs.end(self._tell, keep_on)
            if self._rank.index:
                return
            scores = self._scores(pairs.positions)
            self._tell(
                leave_pairs(
                    self._config.pairs,
                    pairs,
                    None if scores is None else dict(zip(pairs.positions, scores, strict=True)),
                    self._examples,
                    self._config.start.model,
                    steps=self._done,
                    seed=self._config.job.training.seed,
                )
            )

    @contextmanager
    def _during(self, stage: Stage) -> Iterator[None]:
        """A stage that is done here, within the one that the driver tells of."""
        started = time.monotonic()
        self._tell(EventReport(type="stage.started", stage=stage, message=f"Stage {stage} starts"))
        yield
        seconds = round(time.monotonic() - started, 3)
        message = f"Stage {stage} took {seconds:.1f} s"
        self._tell(EventReport(type="stage.completed", stage=stage, message=message, data={"seconds": seconds}))

    def _has_scores(self, positions: list[int]) -> bool:
        return self._feed is None or self._feed.ready([self._examples[i].key for i in positions])

    def _scores(self, positions: list[int]) -> list[Score] | None:
        return self._feed.get([self._examples[i].key for i in positions]) if self._feed else None


def _feed(config: RunConfig, examples: ExampleFile, order: TrainingOrder) -> ScoreFeed | None:
    if config.store_root is None or config.pass_state is None:
        return None
    keys = {examples[i].key for i in order.first_visits().tolist()}
    reader = ReferenceStore(config.store_root, config.namespace).reader(keys)
    return ScoreFeed(reader, config.pass_state)


def _started(
    lm: CausalLM, live: LiveReference | None, num_steps: int, done: int, place: str, rank: Rank
) -> EventReport:
    message = f"Training goes on after step {done}" if done else "Training starts"
    beside = f"; the reference that follows: {live.lm.paths}" if live else ""
    return EventReport(
        type="train.started",
        stage=Stage.TRAIN,
        message=f"{message}: {num_steps} steps on {place}; {lm.paths}{beside}",
        data={
            "total_steps": num_steps,
            "resumed_from_step": done,
            "workers": rank.count,
            "shares_prompts": lm.shares_prompts,
            "sharing_refused": lm.no_sharing,
            "head_apart": lm.body is not None,
            "head_apart_refused": lm.no_body,
            "attention": lm.attention,
            "flex_attention_refused": lm.no_kernel,
            "compiled": lm.is_compiled,
            "compile_refused": lm.no_compile,
        },
    )


def _passed_over(unreadable: Sequence[str], step: int) -> EventReport:
    return EventReport(
        type="checkpoint.unreadable",
        stage=Stage.TRAIN,
        message=f"Training goes back to the checkpoint after step {step}, since what came later cannot be read: "
        + "; ".join(unreadable),
        data={"step": step, "unreadable": list(unreadable)},
    )


def _tell_saved(tell: Tell, step: int) -> None:
    tell(
        EventReport(
            type="checkpoint.saved", stage=Stage.TRAIN, message=f"Checkpoint after step {step}", data={"step": step}
        )
    )


def _alarm(alarm: Alarm, step: int) -> EventReport:
    return EventReport(
        type="health.alarm",
        stage=Stage.TRAIN,
        message=f"{alarm.message} {alarm.advice}",
        data={"name": alarm.name, "step": step, "advice": alarm.advice, "evidence": alarm.evidence},
    )
