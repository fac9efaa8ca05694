"""The reference pass on a pool of its own: what the store lacks, scored by actors in training order."""

import logging
import threading
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
from workers.reference.plan import windows

logger = logging.getLogger(__name__)

_STOP_POLL_S = 1.0


def run(
    config: ScorerConfig,
    to_score: Sequence[int],
    resources: Resources,
    gpus_per_worker: float,
    on_scored: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Score all positions on the reference pool, and give the pool back.

    on_scored: called with the number of pairs scored so far after each shard.
    stop: set from another thread to give up.
    Raises AttemptError `pool_unavailable` when no worker starts in time, `reference_workers_lost` when more than
    `resources.max_failures` died; work of a lost one is taken by another.
    """

    def start() -> Any:
        return (
            ray.remote(Scorer)
            .options(
                num_cpus=resources.reference.cpus_per_worker,
                num_gpus=gpus_per_worker,
                label_selector=Pool.REFERENCE.selector,
            )
            .remote(config)
        )

    waiting = deque(windows(to_score, resources.reference.workers))
    actors = [start() for _ in range(min(resources.reference.workers, len(waiting)))]
    try:
        _await_first(actors, resources.start_timeout_s)
        busy: dict[Any, tuple[Any, list[int]]] = {}
        idle = deque(actors)
        scored = failures = 0
        while (waiting or busy) and not stop.is_set():
            while waiting and idle:
                actor, window = idle.popleft(), waiting.popleft()
                busy[actor.score.remote(window)] = (actor, window)
            done, _ = ray.wait(list(busy), num_returns=1, timeout=_STOP_POLL_S)
            if not done:
                continue
            actor, window = busy.pop(done[0])
            try:
                scored += ray.get(done[0])
            except RayActorError as error:
                failures += 1
                if failures > resources.max_failures:
                    raise AttemptError(
                        "reference_workers_lost", f"{failures} reference workers died; the last: {error}", Fault.SYSTEM
                    ) from error
                logger.warning("a reference worker died, its pairs go to another: %s", error)
                actors.remove(actor)
                actor = start()
                actors.append(actor)
                waiting.appendleft(window)
            else:
                on_scored(scored)
            idle.append(actor)
    finally:
        for actor in actors:
            ray.kill(actor)


def _await_first(actors: Sequence[Any], timeout_s: float) -> None:
    done, _ = ray.wait([actor.ready.remote() for actor in actors], num_returns=1, timeout=timeout_s)
    if not done:
        raise AttemptError(
            "pool_unavailable",
            f"No reference worker could be placed within {timeout_s:.0f} s: no node labelled "
            f"{Pool.REFERENCE.selector} has room. Check resources.reference, or the cluster's nodes.",
            Fault.SYSTEM,
        )
    ray.get(done)
