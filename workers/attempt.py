"""One attempt at a job: prepare, then reference pass and training side by side, then publish.

Every stage may be entered again after a crash, and takes up what the one before left in the job's run directory.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import ray

from service.spec import AlignmentJob, Lora, Storage
from service.spec.data_report import DataReport
from service.spec.pools import Pool
from service.spec.reports import AttemptBrief
from service.spec.resources import ReferencePlacement
from service.spec.stages import Stage
from service.spec.training import Parallelism
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.data.prepare import prepare, require_usable
from workers.data.sources import training_file, validation_file
from workers.data.tokenizer import load_tokenizer
from workers.engine.config import RunConfig, WorkerConfig
from workers.mailbox import Forwarder
from workers.pools import can_overlap, find_pool
from workers.publish import publish
from workers.reference import passes
from workers.reference.actor import ScorerConfig
from workers.reference.fingerprint import namespace
from workers.reference.handover import PassState, write_state
from workers.reference.plan import plan
from workers.reference.store import ReferenceStore
from workers.reporting import Reporter
from workers.sources import Weights, check_model, policy_weights, reference_weights
from workers.tensorboard import EventFiles


class Attempt:
    def __init__(self, brief: AttemptBrief, reporter: Reporter) -> None:
        self._brief = brief
        self._job = brief.spec
        self._reporter = reporter
        self._storage = Storage(Path(brief.storage))
        self._reference_store = self._storage.root / brief.reference_store
        self._run_dir = self._storage.run(brief.job_id)
        self._examples = self._run_dir / "examples.arrow"
        self._pass_state = self._run_dir / "reference.state"
        self._checkpoints = self._storage.checkpoints(brief.job_id)
        self._export = self._run_dir / "export"
        self._curves = self._run_dir / "tensorboard"
        self._stop_scoring = threading.Event()
        self._forwarder: Forwarder | None = None
        self._publishes = threading.Event()
        self._pinned = self._job.data.train  # until it is fetched
        self.stage = Stage.PREPARE  # the one that a failure belongs to

    def run(self) -> None:
        """Raises AttemptError for what is understood, Paused after `pause`, anything else for our bugs."""
        with self._during(Stage.PREPARE):
            report = self._prepare()
        target = self._storage.model(self._brief.job_id)
        if not target.exists() and not self._export.exists():
            ray.init(address=os.environ["RAY_ADDRESS"])
            with (
                EventFiles(self._curves) as curves,
                Forwarder(self._reporter, curves.put) as forwarder,
            ):
                self._forwarder = forwarder
                config = RunConfig(self._job, self._start, self._examples, self._checkpoints, self._export)
                if self._job.needs_reference_pass:
                    self._score_and_train(config, forwarder.mailbox)
                elif self._job.needs_reference:
                    reference = reference_weights(self._job, self._storage).model
                    self._train(replace(config, reference=reference), forwarder.mailbox)
                else:
                    self._train(config, forwarder.mailbox)
        self._publishes.set()
        with self._during(Stage.PUBLISH):
            size = publish(self._export, target, self._brief.job_id, self._pinned_job, report, self._curves)
            self._reporter.progress(Stage.PUBLISH, size, size, "bytes")
            self._reporter.event(
                "model.published", f"The model is at {target}", Stage.PUBLISH, path=str(target), bytes=size
            )
        for done_with in (self._checkpoints, self._run_dir / "train"):  # the second is Ray's
            shutil.rmtree(done_with, ignore_errors=True)

    def pause(self) -> bool:
        """Ask training to save a checkpoint and stop: `run` raises Paused then. Returns whether there is an end to wait
        for: also the one of publishing, which is near. What else is under way may be left as it is."""
        if self._publishes.is_set():
            return True
        if self._forwarder is None or not self._forwarder.trains.is_set():
            return False
        self._forwarder.mailbox.pause.remote()
        return True

    @cached_property
    def _start(self) -> Weights:
        return policy_weights(self._job, self._storage)

    @property
    def _pinned_job(self) -> AlignmentJob:
        """The job as its model card has it: naming the very rows that were fetched."""
        return self._job.model_copy(update={"data": self._job.data.model_copy(update={"train": self._pinned})})

    def _prepare(self) -> DataReport:
        check_model(self._job, self._start)
        tokenizer = load_tokenizer(self._start.model)
        source, self._pinned = training_file(self._brief, self._run_dir, self._reporter)
        report = prepare(
            self._job,
            source,
            self._examples,
            tokenizer,
            lambda rows: self._reporter.progress(Stage.PREPARE, rows, 0, "rows"),
            validation=validation_file(self._brief),
        )
        self._reporter.progress(Stage.PREPARE, report.rows, report.rows, "rows")
        self._reporter.event(
            "data.prepared",
            f"{report.used} of {report.rows} rows are usable, {report.bad} are not, {report.truncated} are truncated",
            Stage.PREPARE,
            **report.model_dump(mode="json"),
        )
        require_usable(report, self._job.data.max_bad_rows, validated=self._job.data.validation is not None)
        return report

    def _score_and_train(self, config: RunConfig, mailbox: Any) -> None:
        """Training reads scores from the store as they land, so both run at one time where the cluster has room."""
        weights = reference_weights(self._job, self._storage)
        precision = self._job.training.precision
        reference, policy = find_pool(Pool.REFERENCE), find_pool(Pool.POLICY)
        request = self._job.resources.reference
        on_policy = self._policy_scores()
        gpus = policy.gpus_per_worker(self._job.resources.policy) if on_policy else reference.gpus_per_worker(request)
        config = replace(
            config,
            store_root=self._reference_store,
            namespace=namespace(weights, precision, "cuda" if gpus else "cpu"),
            pass_state=self._pass_state,
        )
        if on_policy:
            write_state(self._pass_state, PassState.COMPLETE)  # of what others would still write
            self._train(replace(config, scores_itself=True), mailbox)
            return
        overlap = can_overlap(reference, request, policy, self._job.resources.policy)
        scorer = ScorerConfig(
            weights=weights,
            examples=self._examples,
            store_root=self._reference_store,
            namespace=config.namespace,
            precision=precision,
            batch_tokens=self._job.training.micro_batch_tokens,
        )
        write_state(self._pass_state, PassState.RUNNING)
        if not overlap:
            self._reference(scorer, gpus)
            self._train(config, mailbox)
            return
        with ThreadPoolExecutor(2, thread_name_prefix="stage") as threads:
            scoring = threads.submit(self._reference, scorer, gpus)
            training = threads.submit(self._train, config, mailbox)
            wait([scoring, training], return_when=FIRST_EXCEPTION)
            try:
                self._raise_cause(scoring, training)
            finally:
                self._stop_scoring.set()  # nobody needs the scores if training failed

    def _policy_scores(self) -> bool:
        """Whether the reference pass runs on the policy's own weights. A model in slices does so by itself, since a
        scorer would need it whole; and LoRA where no node is there for scorers."""
        placement = self._job.resources.reference_placement
        if placement is not ReferencePlacement.AUTO:
            return placement is ReferencePlacement.POLICY
        if self._job.reference is not None:
            return False
        if self._job.training.parallelism is Parallelism.FSDP and self._job.resources.policy.workers > 1:
            return True
        return isinstance(self._job.training.method, Lora) and not find_pool(Pool.REFERENCE).node_ids

    def _raise_cause(self, scoring: Future[None], training: Future[None]) -> None:
        """When scoring fails training follows, for lack of scores: the first is what to report."""
        for stage, future in ((Stage.REFERENCE, scoring), (Stage.TRAIN, training)):
            if future.done() and (error := future.exception()):
                self.stage = stage
                raise error

    def _reference(self, config: ScorerConfig, gpus_per_worker: float) -> None:
        state = PassState.FAILED
        try:
            with self._during(Stage.REFERENCE):
                self._score(config, gpus_per_worker)
            state = PassState.COMPLETE
        finally:
            write_state(self._pass_state, state)

    def _score(self, config: ScorerConfig, gpus_per_worker: float) -> None:
        examples = ExampleFile(self._examples)
        store = ReferenceStore(config.store_root, config.namespace)
        needed = plan(store, examples, TrainingOrder(self._job, examples.rows).first_visits().tolist())
        total = len(needed.to_score)
        self._reporter.put(needed.event(config.namespace))
        if total:
            passes.run(
                config,
                needed.to_score,
                self._job.resources,
                gpus_per_worker,
                lambda paths: self._reporter.event("reference.started", f"A scorer is ready: {paths}", Stage.REFERENCE),
                lambda scored: self._reporter.progress(Stage.REFERENCE, scored, total, "pairs"),
                self._stop_scoring,
            )
        if self._stop_scoring.is_set():
            return
        self._reporter.progress(Stage.REFERENCE, total, total, "pairs")
        self._reporter.put(needed.scored_event("the reference pool is free"))

    def _train(self, config: RunConfig, mailbox: Any) -> None:
        from workers.training import run_training  # seconds, in which scorers already start

        gpus = find_pool(Pool.POLICY).gpus_per_worker(self._job.resources.policy)
        with self._during(Stage.TRAIN):
            run_training(WorkerConfig(config, mailbox), gpus, self._run_dir)

    @contextmanager
    def _during(self, stage: Stage) -> Iterator[None]:
        self.stage = stage
        started = time.monotonic()
        self._reporter.event("stage.started", f"Stage {stage} starts", stage)
        yield
        seconds = round(time.monotonic() - started, 3)
        self._reporter.event("stage.completed", f"Stage {stage} took {seconds:.1f} s", stage, seconds=seconds)
