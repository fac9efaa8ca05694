"""One attempt at a job: prepare, then reference pass and training side by side, then publish.

Every stage may be entered again after a crash, and takes up what the one before left in the job's run directory.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from service.spec import AlignmentJob, Lora, Storage
from service.spec.data_report import DataReport
from service.spec.placement import has_place_for_scorer
from service.spec.pools import Pool
from service.spec.reports import AttemptBrief, Report
from service.spec.resources import ReferencePlacement
from service.spec.stages import Stage
from service.spec.training import Parallelism
from workers import cluster, hub
from workers.data.digest import digest_of
from workers.data.example_file import ExampleFile
from workers.data.held_out import write_held_out
from workers.data.order import TrainingOrder
from workers.data.prepare import prepare, require_usable
from workers.data.sources import size_of, training_file, validation_file
from workers.data.tokenizer import load_tokenizer
from workers.drain import DrainWatch
from workers.durable import remove
from workers.engine.config import RunConfig
from workers.pools import can_overlap, gpus_per_worker, labelled_nodes
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
from workers.training import Training

_SOON_PREPARED = 4 * 2**20  # bytes of rows that are tokenised in the time in which a worker starts


class Attempt:
    def __init__(self, brief: AttemptBrief, reporter: Reporter, on_drain: Callable[[], None]) -> None:
        """on_drain: called, from a thread of its own, if the driver's node is drained while it trains."""
        self._brief = brief
        self._job = brief.spec
        self._reporter = reporter
        self._on_drain = on_drain
        self._storage = Storage(Path(brief.storage))
        self._reference_store = self._storage.root / brief.reference_store
        self._run_dir = self._storage.run(brief.job_id)
        self._examples = self._run_dir / "examples.arrow"
        self._pass_state = self._run_dir / "reference.state"
        self._checkpoints = self._storage.checkpoints(brief.job_id)
        self._export = self._run_dir / "export"
        self._curves = self._run_dir / "tensorboard"
        self._event_files = EventFiles(self._curves)
        self._stop_scoring = threading.Event()
        self._scorers: list[passes.Worker] = []  # started before it is known what they score
        self._training: Training | None = None
        self._publishes = threading.Event()
        self._pinned = self._job.data.train  # until it is fetched
        self._source = Path()  # of the training rows; from the prepare stage on
        self.stage = Stage.PREPARE  # the one that a failure belongs to

    def run(self) -> None:
        """Raises AttemptError for what is understood, Paused after `pause`, anything else for our bugs."""
        target = self._storage.model(self._brief.job_id)
        with self._during(Stage.PREPARE):
            report = self._prepare(trains=not target.exists() and not self._export.exists())
        if self._training:
            with self._event_files, DrainWatch(self._on_drain):
                self._train_as_asked(self._training)
        self._publishes.set()
        with self._during(Stage.PUBLISH):
            self._keep_held_out()
            digest = digest_of(self._source)
            size = publish(self._export, target, self._brief.job_id, self._pinned_job, report, self._curves, digest)
            self._reporter.progress(Stage.PUBLISH, size, size, "bytes")
            self._reporter.event(
                "model.published",
                f"The model is at {target}",
                Stage.PUBLISH,
                path=str(target),
                bytes=size,
                data_sha256=digest,
                started_from=self._job.model.source,
            )
        remove(self._checkpoints)
        shutil.rmtree(self._run_dir / "train", ignore_errors=True)  # Ray's

    def pause(self) -> bool:
        """Ask training to save a checkpoint and stop: `run` raises Paused then. Returns whether there is an end to wait
        for: also the one of publishing, which is near. What else is under way may be left as it is."""
        if self._publishes.is_set():
            return True
        return self._training is not None and self._training.pause()

    @cached_property
    def _start(self) -> Weights:
        return policy_weights(self._job, self._storage)

    @property
    def _pinned_job(self) -> AlignmentJob:
        """The job as its model card has it: naming the very rows and models that were fetched."""
        return self._job.model_copy(update={"data": self._job.data.model_copy(update={"train": self._pinned})})

    def _prepare(self, *, trains: bool) -> DataReport:
        self._fetch_models()
        check_model(self._job, self._start)
        self._source, self._pinned = training_file(self._brief, self._run_dir, self._reporter)
        if trains:
            cluster.join()
            self._training = Training(self._job.resources, self._run_dir, self._forward)
            if size_of(self._source) <= _SOON_PREPARED:
                self._start_early(self._training)
        tokenizer = load_tokenizer(self._start.model)
        report = prepare(
            self._job,
            self._source,
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

    def _fetch_models(self) -> None:
        """Those on the Hub, at the commits that they are taken at from here on."""
        self._job = hub.pin(self._job, self._run_dir)
        for model in (self._job.model, self._job.reference):
            if model is not None and model.repository is not None:
                path = hub.copy_of(model, self._storage)
                told = {"source": model.source, "commit": model.commit, "path": str(path)}
                self._reporter.event("model.fetched", f"{model.source} is at {path}", Stage.PREPARE, **told)

    def _keep_held_out(self) -> None:
        """For evaluations, which ask models what they were not trained on."""
        examples = ExampleFile(self._examples)
        numbers = examples.rows[TrainingOrder(self._job, examples.rows).held_out].tolist()
        target = self._storage.held_out(self._brief.job_id)
        write_held_out(self._job, numbers, self._source, validation_file(self._brief), target)

    def _forward(self, report: Report) -> None:
        self._reporter.put(report)
        self._event_files.put(report)

    def _train_as_asked(self, training: Training) -> None:
        config = RunConfig(self._job, self._start, self._examples, self._checkpoints, self._export)
        config = replace(config, pairs=self._storage.pairs(self._brief.job_id), attempt_id=self._brief.attempt_id)
        if self._scorer:
            self._score_and_train(config, self._scorer, training)
        elif self._job.needs_reference:
            self._train(replace(config, reference=reference_weights(self._job, self._storage).model), training)
        else:
            self._train(config, training)

    def _start_early(self, training: Training) -> None:
        """Let workers take their places and import while rows are tokenised; scorers only if they will have work."""
        if self._trains_beside_scorers:
            training.start_early()
        resources, scorer = self._job.resources, self._scorer
        if scorer and not self._policy_scores and ReferenceStore(scorer.store_root, scorer.namespace).is_empty():
            self._scorers = [
                passes.start(scorer, resources, self._scorer_gpus) for _ in range(resources.reference.workers)
            ]

    @cached_property
    def _scorer(self) -> ScorerConfig | None:
        """None for a job without a reference pass."""
        if not self._job.needs_reference_pass:
            return None
        weights = reference_weights(self._job, self._storage)
        precision, compiled = self._job.training.precision, self._job.training.compile
        device = "cuda" if self._scorer_gpus else "cpu"
        return ScorerConfig(
            weights=weights,
            examples=self._examples,
            store_root=self._reference_store,
            namespace=namespace(weights, precision, device, compiled=compiled),
            precision=precision,
            compiled=compiled,
            batch_tokens=self._job.training.micro_batch_tokens,
            attempt_id=self._brief.attempt_id,
        )

    @cached_property
    def _scorer_gpus(self) -> float:
        """Of each worker that scores."""
        pool = Pool.POLICY if self._policy_scores else Pool.REFERENCE
        resources = self._job.resources
        request = resources.policy if self._policy_scores else resources.reference
        return gpus_per_worker(pool, request, labelled_nodes())

    def _score_and_train(self, config: RunConfig, scorer: ScorerConfig, training: Training) -> None:
        """Training reads scores from the store as they land, so both run at one time where the cluster has room."""
        config = replace(config, store_root=scorer.store_root, namespace=scorer.namespace, pass_state=self._pass_state)
        if self._policy_scores:
            write_state(self._pass_state, PassState.COMPLETE)  # of what others would still write
            self._train(replace(config, scores_itself=True), training)
            return
        write_state(self._pass_state, PassState.RUNNING)
        if not self._trains_beside_scorers:
            self._reference(scorer)
            self._train(config, training)
            return
        with ThreadPoolExecutor(2, thread_name_prefix="stage") as threads:
            scores = threads.submit(self._reference, scorer)
            trains = threads.submit(self._train, config, training)
            wait([scores, trains], return_when=FIRST_EXCEPTION)
            try:
                self._raise_cause(scores, trains)
            finally:
                self._stop_scoring.set()  # nobody needs the scores if training failed

    @cached_property
    def _trains_beside_scorers(self) -> bool:
        """Whether training may take its place before the reference pass, if there is one, has ended."""
        if not self._job.needs_reference_pass or self._policy_scores:
            return True
        resources = self._job.resources
        return can_overlap(resources.reference, resources.policy, labelled_nodes())

    @cached_property
    def _policy_scores(self) -> bool:
        """Whether the reference pass runs on the policy's own weights. A model in slices does so by itself, since a
        scorer would need it whole; and LoRA where scorers have no place beside training, as on a single GPU."""
        placement = self._job.resources.reference_placement
        if placement is not ReferencePlacement.AUTO:
            return placement is ReferencePlacement.POLICY
        if self._job.reference is not None:
            return False
        if self._job.training.parallelism is Parallelism.FSDP and self._job.resources.policy.workers > 1:
            return True
        if not isinstance(self._job.training.method, Lora):
            return False
        resources = self._job.resources
        return not has_place_for_scorer(resources.policy, resources.reference, labelled_nodes())

    def _raise_cause(self, scoring: Future[None], training: Future[None]) -> None:
        """When scoring fails training follows, for lack of scores: the first is what to report."""
        for stage, future in ((Stage.REFERENCE, scoring), (Stage.TRAIN, training)):
            if future.done() and (error := future.exception()):
                self.stage = stage
                raise error

    def _reference(self, config: ScorerConfig) -> None:
        state = PassState.FAILED
        try:
            with self._during(Stage.REFERENCE):
                self._score(config)
            if not self._stop_scoring.is_set():
                state = PassState.COMPLETE
        finally:
            write_state(self._pass_state, state)

    def _score(self, config: ScorerConfig) -> None:
        examples = ExampleFile(self._examples)
        store = ReferenceStore(config.store_root, config.namespace)
        needed = plan(store, examples, TrainingOrder(self._job, examples.rows).first_visits().tolist())
        total = len(needed.to_score)
        self._reporter.put(needed.event(config.namespace))
        if total or self._scorers:
            passes.run(
                config,
                needed.to_score,
                self._job.resources,
                self._scorer_gpus,
                self._scorers,
                lambda paths: self._reporter.event("reference.started", f"A scorer is ready: {paths}", Stage.REFERENCE),
                lambda scored: self._reporter.progress(Stage.REFERENCE, scored, total, "pairs"),
                self._stop_scoring,
            )
        if self._stop_scoring.is_set():
            return
        self._reporter.progress(Stage.REFERENCE, total, total, "pairs")
        self._reporter.put(needed.scored_event("the reference pool is free"))

    def _train(self, config: RunConfig, training: Training) -> None:
        with self._during(Stage.TRAIN):
            training.run(config)

    @contextmanager
    def _during(self, stage: Stage) -> Iterator[None]:
        self.stage = stage
        started = time.monotonic()
        self._reporter.event("stage.started", f"Stage {stage} starts", stage)
        yield
        seconds = round(time.monotonic() - started, 3)
        self._reporter.event("stage.completed", f"Stage {stage} took {seconds:.1f} s", stage, seconds=seconds)
