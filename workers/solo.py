"""Training by one worker: a Ray actor that is its own mailbox.

Ray Train would start a controller and four helpers first, each with seconds of imports, so that workers find each
other. One worker has none to find.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import ray
from ray.exceptions import RayError

from service.spec import Resources
from service.spec.pools import Pool
from service.spec.reports import Fault, Report
from workers.drain import DrainWatch, moves
from workers.engine.config import RunConfig
from workers.errors import AttemptError, Paused, not_placed
from workers.lean import without
from workers.mailbox import Forwarder, Mailbox

logger = logging.getLogger(__name__)


class SoloTrainer(Mailbox):
    """The actor. Its mailbox answers while a thread trains."""

    def __init__(self) -> None:
        super().__init__()
        logging.basicConfig(level=logging.INFO, format="%(message)s")  # Ray shows it in the driver's log

    async def load(self) -> None:
        """Import what training needs, before there is anything to train on."""
        await asyncio.to_thread(_import_engine)

    async def ready(self) -> None:
        """Returns when the actor has its place."""

    async def train(self, config: RunConfig) -> AttemptError | Paused | None:
        """To the end of the run. A failure that a retry would only repeat is returned, not raised; so is a pause, which
        is also made when the node is drained."""
        loop = asyncio.get_running_loop()

        def tell(report: Report) -> None:
            loop.call_soon_threadsafe(self._add, report)

        with DrainWatch(lambda: loop.call_soon_threadsafe(self._pause.set)):
            return await asyncio.to_thread(_train, config, tell, self._pause.is_set)


def _import_engine() -> None:
    with without("scipy", "boto3"):
        import_module("workers.engine.loop")


def _train(
    config: RunConfig, tell: Callable[[Report], None], pause_asked: Callable[[], bool]
) -> AttemptError | Paused | None:
    _import_engine()  # here, so that the driver does without torch
    from workers.device import hide_other_gpus
    from workers.engine.loop import TrainingRun
    from workers.engine.parallel import Rank
    from workers.logs import configure

    configure(config.attempt_id)
    hide_other_gpus()
    try:
        TrainingRun(config, Rank(), tell, pause_asked).run()
    except Paused as paused:
        return paused.with_traceback(None)  # its frames hold the model
    except AttemptError as error:
        logger.error("training stops: %s", error)
        return error.with_traceback(None)
    return None


class Solo:
    """The driver's hand on the actor."""

    def __init__(self, resources: Resources, gpus: float, forward: Callable[[Report], None]) -> None:
        """gpus: of the worker. forward: called with every report, from a thread of its own."""
        self._resources = resources
        self._gpus = gpus
        self._forward = forward
        self._waiting: Any = None
        self._forwarder: Forwarder | None = None
        self._pause_asked = threading.Event()

    def start_early(self) -> None:
        """Let the actor take its place and import, while there is nothing to train on yet."""
        self._waiting = self._start()

    def run(self, config: RunConfig) -> None:
        """Train to the end, or raise AttemptError or Paused. A lost worker is replaced, and goes on from the run's
        checkpoints, up to `resources.max_failures` times; one whose node is drained is too, from the step it was at."""
        failures = 0
        while True:
            worker, self._waiting = self._waiting or self._start(), None
            try:
                result = self._train(worker, config)
            except RayError as error:
                failures += 1
                if failures > self._resources.max_failures:
                    raise AttemptError(
                        "training_workers_failed", f"Training workers failed: worker 0: {error}", Fault.SYSTEM
                    ) from error
                logger.warning("the training worker is lost, another one goes on: %s", error)
                continue
            if isinstance(result, Paused) and not self._pause_asked.is_set():
                self._forward(moves(result))
                continue
            if result is not None:
                raise result
            return

    def pause(self) -> bool:
        """Ask the worker to save a checkpoint and stop. Returns whether there is one that will."""
        self._pause_asked.set()  # before the worker is looked for: one that is only now replaced reads it
        forwarder = self._forwarder
        if forwarder is None or not forwarder.trains.is_set():
            return False
        forwarder.mailbox.pause.remote()
        return True

    def _train(self, worker: Any, config: RunConfig) -> AttemptError | Paused | None:
        if not ray.wait([worker.ready.remote()], timeout=self._resources.start_timeout_s)[0]:
            ray.kill(worker)
            raise not_placed(self._resources, self._gpus, "no node has room for it")
        try:
            with Forwarder(worker, self._forward) as self._forwarder:
                if self._pause_asked.is_set():
                    return Paused("the worker before was lost before it could pause")
                result: AttemptError | Paused | None = ray.get(worker.train.remote(config))
                return result
        finally:
            self._forwarder = None  # nobody is left to be paused

    def _start(self) -> Any:
        worker = (
            ray.remote(SoloTrainer)
            .options(
                num_cpus=self._resources.policy.cpus_per_worker,
                num_gpus=self._gpus,
                label_selector=Pool.POLICY.selector,
            )
            .remote()
        )
        worker.load.remote()
        return worker
