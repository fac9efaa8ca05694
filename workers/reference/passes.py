"""The reference pass on a pool of its own: what the store lacks, scored by actors in training order."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from service.spec import Resources
from service.spec.pools import Pool
from service.spec.reports import Fault
from workers.errors import AttemptError
from workers.reference.actor import Scorer, ScorerConfig
from workers.reference.plan import PacedWindows

logger = logging.getLogger(__name__)

_STOP_POLL_S = 1.0


class Worker(NamedTuple):
    """actor: a `Scorer`. ready: what comes of its loading the model."""

    actor: Any
    ready: Any


def start(config: ScorerConfig, resources: Resources, gpus_per_worker: float) -> Worker:
    """One that loads the model as soon as it has its place. Its examples may be written later."""
    actor = (
        ray.remote(Scorer)
        .options(
            num_cpus=resources.reference.cpus_per_worker,
            num_gpus=gpus_per_worker,
            label_selector=Pool.REFERENCE.selector,
        )
        .remote(config)
    )
    return Worker(actor, actor.ready.remote())


def run(
    config: ScorerConfig,
    to_score: Sequence[int],
    resources: Resources,
    gpus_per_worker: float,
    started: Sequence[Worker],
    on_ready: Callable[[str], None],
    on_scored: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Score all positions on the reference pool, and give the pool back.

    started: workers that were started before it was known what there is to score.
    on_ready: called with the ways through the engine that the model takes, for each worker.
    on_scored: called with the number of pairs scored so far after each shard.
    stop: set from another thread to give up.
    Raises AttemptError `pool_unavailable` when none works and none becomes ready for `resources.start_timeout_s`, be it
    at the start or after the last one was lost; `reference_workers_lost` when more than `resources.max_failures` died,
    and `reference_workers_failed` if the last of them raised instead; what a worker understands is raised as it is, at
    once, since another would find the same. What one leaves undone is taken by another.
    """

    count = min(resources.reference.workers, len(to_score))
    for spare in started[count:]:
        ray.kill(spare.actor)
    if not count:
        return
    waiting = PacedWindows(to_score, count)
    workers = list(started[:count])
    workers += [start(config, resources, gpus_per_worker) for _ in range(count - len(workers))]
    actors = [worker.actor for worker in workers]
    starting: dict[Any, Any] = {worker.ready: worker.actor for worker in workers}
    try:
        busy: dict[Any, tuple[Any, list[int], float]] = {}
        idle: deque[Any] = deque()  # never one that may yet find no place: its pairs would wait with it
        scored = failures = 0
        deadline = time.monotonic() + resources.start_timeout_s
        while (waiting or busy) and not stop.is_set():
            while waiting and idle:
                actor, window = idle.popleft(), waiting.take()
                busy[actor.score.remote(window)] = (actor, window, time.monotonic())
            done, _ = ray.wait([*busy, *starting], num_returns=1, timeout=_STOP_POLL_S)
            if not done:
                if not busy and time.monotonic() > deadline:
                    raise _no_place(resources.start_timeout_s)
                continue
            if done[0] in starting:
                actor, window, since = starting.pop(done[0]), [], 0.0
            else:
                actor, window, since = busy.pop(done[0])
            try:
                paths = ray.get(done[0])
            except RayError as error:
                if isinstance(error, RayTaskError) and isinstance(error.cause, AttemptError):
                    raise error.cause from error
                failures += 1
                if failures > resources.max_failures:
                    raise _too_many(failures, error) from error
                logger.warning("a reference worker is lost, its pairs go to another: %s", error)
                actors.remove(actor)
                ray.kill(actor)  # one that raised, or is out of reach, still holds the place that another needs
                another = start(config, resources, gpus_per_worker)
                actors.append(another.actor)
                starting[another.ready] = another.actor
                deadline = time.monotonic() + resources.start_timeout_s
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


def _no_place(timeout_s: float) -> AttemptError:
    return AttemptError(
        "pool_unavailable",
        f"No reference worker was ready within {timeout_s:.0f} s: no node labelled {Pool.REFERENCE.selector} has room, "
        "or the model takes longer to load. Check resources.reference, resources.start_timeout_s, or the cluster's "
        "nodes.",
        Fault.SYSTEM,
    )


def _too_many(failures: int, last: RayError) -> AttemptError:
    if isinstance(last, RayTaskError):  # alive, but the model raised; the log has its traceback
        code, what = "reference_workers_failed", f"failed; the last: {type(last.cause).__name__}: {last.cause}"
    else:
        code, what = "reference_workers_lost", f"died; the last: {last}"
    return AttemptError(code, f"{failures} reference workers {what}", Fault.SYSTEM)
