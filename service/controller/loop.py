"""The controller's loops: one follows attempts through start, watch and cancel in this order, one follows Serve.

Each takes a step every `settings.reconcile_every_s`. What is known to go wrong is logged and tried again at the next
step, and keeps no other reconciler from its own; anything else is a bug and ends the controller.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.cluster.http import ClusterError, connect
from service.controller import cancel, start
from service.controller.context import ClusterCode, Controller, make_controller
from service.controller.deploy import Deploy
from service.controller.track import Track
from service.controller.watch import Watch
from service.db.session import Database
from service.errors import InvalidState
from service.settings import Settings
from service.telemetry import context, metrics
from service.trackers.mlflow import Mlflow, TrackerError

log = logging.getLogger(__name__)

# OSError: drivers raise it bare when the database's address does not answer
_TROUBLE = (ClusterError, InvalidState, TrackerError, DBAPIError, PoolTimeout, OSError)

Reconcile = Callable[[Controller], Awaitable[None]]


async def run(settings: Settings, database: Database, stop: asyncio.Event, code: ClusterCode | None = None) -> None:
    """Reconcile until `stop` is set. Nothing is lost by being killed at any point instead.

    code: what the cluster is told to run, if not the product's own.
    """
    client = connect(settings)
    try:
        controller = make_controller(settings, database, client, code)
        async with asyncio.TaskGroup() as loops:
            # one after the other, so that nothing is submitted while its cancel is being finished
            loops.create_task(_repeat(controller, stop, (start.reconcile, Watch().reconcile, cancel.reconcile)))
            # apart, because Serve may take long to answer
            loops.create_task(_repeat(controller, stop, (Deploy().reconcile,)))
            if settings.mlflow_url is not None:
                track = Track(Mlflow(settings.mlflow_url, settings.mlflow_experiment))
                loops.create_task(_repeat(controller, stop, (track.reconcile,)))
    finally:
        await client.aclose()


async def _repeat(controller: Controller, stop: asyncio.Event, reconcilers: Sequence[Reconcile]) -> None:
    troubles: dict[str, str] = {}
    while not stop.is_set():
        for reconcile in reconcilers:
            await _step(controller, reconcile, troubles)
        try:
            await asyncio.wait_for(stop.wait(), controller.settings.reconcile_every_s)
        except TimeoutError:
            continue


async def _step(controller: Controller, reconcile: Reconcile, troubles: dict[str, str]) -> None:
    """One pass. The same trouble is logged once, not at every step."""
    name = reconcile.__module__.rpartition(".")[2]
    started = time.perf_counter()
    try:
        with context.bound(reconciler=name):
            await reconcile(controller)
    except _TROUBLE as error:
        metrics.RECONCILE_TROUBLES.labels(name).inc()
        if troubles.get(name) != str(error):
            log.warning("%s: %s", name, error)
        troubles[name] = str(error)
    else:
        if troubles.pop(name, None):
            log.info("%s: all well again", name)
        metrics.RECONCILED_AT.labels(name).set_to_current_time()
    finally:
        metrics.RECONCILE_SECONDS.labels(name).observe(time.perf_counter() - started)
