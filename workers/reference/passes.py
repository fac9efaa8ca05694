"""The reference pass on a pool of its own: what the store lacks, scored by actors in training order."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError

from service.spec import Resources
from service.spec.pools import Pool
from service.spec.reports import Fault
from workers.errors import AttemptError
from workers.reference.actor import Scorer, ScorerConfig
from workers.reference.plan import PacedWindows

logger = logging.getLogger(__name__)

_STOP_POLL_S = 1.0


def start(config: ScorerConfig, resources: Resources, gpus_per_worker: float) -> Any:
    """A worker, which loads the model as soon as it has its place. Its examples may be written later."""
    return (
        ray.remote(Scorer)
        .options(
            num_cpus=resources.reference.cpus_per_worker,
            num_gpus=gpus_per_worker,
            label_selector=Pool.REFERENCE.selector,
        )
        .remote(config)
    )


def run(
    config: ScorerConfig,
    to_score: Sequence[int],
    resources: Resources,
    gpus_per_worker: float,
    started: Sequence[Any],
    on_ready: Callable[[str], None],
    on_scored: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Score all positions on the reference pool, and give the pool back.

    started: workers that were started before it was known what there is to score.
    on_ready: called with the ways through the engine that the model takes, for each worker.
    on_scored: called with the number of pairs scored so far after each shard.
    stop: set from another thread to give up.
    Raises AttemptError `pool_unavailable` when no worker starts in time, `reference_workers_lost` when more than
    `resources.max_failures` died; work of a lost one is taken by another.
    """

    count = min(resources.reference.workers, len(to_score))
    for spare in started[count:]:
        ray.kill(spare)
    if not count:
        return
    waiting = PacedWindows(to_score, count)
    actors = list(started[:count])
    actors += [start(config, resources, gpus_per_worker) for _ in range(count - len(actors))]
    starting: dict[Any, Any] = {actor.ready.remote(): actor for actor in actors}
    try:
        _await_first(list(starting), resources.start_timeout_s, stop)
        busy: dict[Any, tuple[Any, list[int], float]] = {}
        idle: deque[Any] = deque()  # never one that may yet find no place: its pairs would wait with it
        scored = failures = 0
        while (waiting or busy) and not stop.is_set():
            while waiting and idle:
                actor, window = idle.popleft(), waiting.take()
                busy[actor.score.remote(window)] = (actor, window, time.monotonic())
            done, _ = ray.wait([*busy, *starting], num_returns=1, timeout=_STOP_POLL_S)
            if not done:
                continue
            if done[0] in starting:
                actor, window, since = starting.pop(done[0]), [], 0.0
            else:
                actor, window, since = busy.pop(done[0])
            try:
                paths = ray.get(done[0])
            except RayActorError as error:
                failures += 1
                if failures > resources.max_failures:
                    raise AttemptError(
                        "reference_workers_lost", f"{failures} reference workers died; the last: {error}", Fault.SYSTEM
                    ) from error
                logger.warning("a reference worker died, its pairs go to another: %s", error)
                actors.remove(actor)
                actors.append(start(config, resources, gpus_per_worker))
                starting[actors[-1].ready.remote()] = actors[-1]
                if window:
                    waiting.give_back(window)
                continue
            idle.append(actor)
            if not window:
                on_ready(paths)
            else:
                scored += len(window)
                waiting.scored(len(window), time.monotonic() - since)
                on_scored(scored)
    finally:
        for actor in actors:
            ray.kill(actor)


def _await_first(ready: Sequence[Any], timeout_s: float, stop: threading.Event) -> None:
    deadline = time.monotonic() + timeout_s
    while not stop.is_set() and not ray.wait(list(ready), num_returns=1, timeout=_STOP_POLL_S)[0]:
        if time.monotonic() > deadline:
            raise AttemptError(
                "pool_unavailable",
                f"No reference worker was ready within {timeout_s:.0f} s: no node labelled {Pool.REFERENCE.selector} "
                "has room, or the model takes longer to load. Check resources.reference, resources.start_timeout_s, or "
                "the cluster's nodes.",
                Fault.SYSTEM,
            )
