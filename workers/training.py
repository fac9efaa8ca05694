"""The driver's side of training: it starts the workers, forwards what they report, and passes a pause on."""

import threading
from collections.abc import Callable
from pathlib import Path

from service.spec import Resources
from service.spec.pools import Pool
from service.spec.reports import Report
from workers.drain import moves
from workers.engine.config import RunConfig, WorkerConfig
from workers.errors import Paused
from workers.mailbox import Forwarder, beside_the_driver
from workers.pools import gpus_per_worker, labelled_nodes
from workers.solo import Solo


class Training:
    """Made when the driver has joined the cluster. `pause` may be called from any thread."""

    def __init__(self, resources: Resources, run_dir: Path, forward: Callable[[Report], None]) -> None:
        """forward: called with every report of the workers, in order, from a thread of its own."""
        self._gpus = gpus_per_worker(Pool.POLICY, resources.policy, labelled_nodes())
        self._run_dir = run_dir
        self._forward = forward
        self._solo = Solo(resources, self._gpus, forward) if resources.policy.workers == 1 else None
        self._group: Forwarder | None = None
        self._pause_asked = threading.Event()

    def start_early(self) -> None:
        """Let a single worker take its place and import, while there is nothing to train on yet."""
        if self._solo:
            self._solo.start_early()

    def run(self, config: RunConfig) -> None:
        """Train to the end, or raise AttemptError or Paused."""
        if self._solo:
            self._solo.run(config)
            return
        while True:
            try:
                self._train_group(config)
                return
            except Paused as paused:
                if self._pause_asked.is_set():
                    raise
                self._forward(moves(paused))

    def pause(self) -> bool:
        """Ask training to save a checkpoint and stop: `run` raises Paused then. Returns whether it will: not before it
        has begun."""
        if self._solo:
            return self._solo.pause()
        self._pause_asked.set()  # before the group is looked for: one that is only now replaced reads it
        group = self._group
        if group is None or not group.trains.is_set():
            return False
        group.mailbox.pause.remote()
        return True

    def _train_group(self, config: RunConfig) -> None:
        from workers.group import train_group  # seconds, in which scorers already start

        try:
            with Forwarder(beside_the_driver(), self._forward) as self._group:
                if self._pause_asked.is_set():
                    raise Paused("before its workers had a place")
                train_group(WorkerConfig(config, self._group.mailbox), self._gpus, self._run_dir)
        finally:
            self._group = None  # nobody is left to be paused
