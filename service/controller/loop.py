"""The controller's loops: one follows attempts through start, watch, budget and stop in this order, one follows Serve
and the names of what it serves, one has checkpoints exported, one sweeps the storage, one keeps forecasts, one delivers
webhooks, one works through evaluations, one removes what has been kept for long enough.

They run in one controller at a time, the leader (`service.controller.leader`). Each takes a step every
`settings.reconcile_every_s`. What is known to go wrong is logged and tried again at the next step, and keeps no other
reconciler from its own; anything else is a bug and ends the controller.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx

from service.cluster.http import ClusterError, connect
from service.controller import budget, promote, start
from service.controller import stop as stopping
from service.controller.archive import Archive
from service.controller.context import ClusterCode, Controller, make_controller
from service.controller.deliver import Deliver
from service.controller.deploy import Deploy
from service.controller.evaluate import Evaluate
from service.controller.export import Export
from service.controller.foretell import Foretell
from service.controller.leader import LeasedDatabase, lead, wait
from service.controller.retain import Retain
from service.controller.sweep import Sweep
from service.controller.track import Track
from service.controller.watch import Watch
from service.db.session import Database
from service.db.trouble import TROUBLE
from service.errors import InvalidState, Unavailable
from service.leases import Lease
from service.settings import Settings
from service.telemetry import context, metrics
from service.trackers import trackers
from service.trackers.base import TrackerError

log = logging.getLogger(__name__)

# A leader that is told to end gives its steps so long; one that removes or copies gigabytes would keep the next leader
# waiting.
LEAVE_WITHIN_S = 3.0
_TROUBLE = (ClusterError, InvalidState, TrackerError, Unavailable, *TROUBLE)

Reconcile = Callable[[Controller], Awaitable[None]]


async def run(settings: Settings, database: Database, stop: asyncio.Event, code: ClusterCode | None = None) -> None:
    """Reconcile, or stand by while another controller does, until `stop` is set; then the lease is given up within
    seconds. Nothing is lost by being killed at any point instead.

    code: what the cluster is told to run, if not the product's own.
    """

    async def reconcile(lease: Lease) -> None:
        async def still_held(_request: httpx.Request) -> None:
            lease.check()

        async with connect(settings) as client:
            client.event_hooks["request"].append(still_held)
            await _reconcile(make_controller(settings, LeasedDatabase(database, lease), client, code), stop)

    await lead(settings, database, stop, reconcile)


async def _reconcile(controller: Controller, stop: asyncio.Event) -> None:
    apart: list[tuple[Reconcile, ...]] = [
        # one after the other, so that nothing is submitted while its cancel is being finished
        (start.reconcile, Watch().reconcile, budget.reconcile, stopping.reconcile),
        (Deploy().reconcile, promote.reconcile),  # Serve may take long to answer
        (Export().reconcile,),
        (Sweep().reconcile,),  # removing many gigabytes takes long too
        (Foretell().reconcile,),  # it may compute for a moment
        (Retain().reconcile,),
    ]
    if controller.settings.models_url is not None:
        apart.append((Archive().reconcile,))
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(_repeat(controller, stop, reconcilers)) for reconcilers in apart]
        loops.append(group.create_task(_deliver(controller, stop)))
        loops.append(group.create_task(_evaluate(controller, stop)))
        for tracker in trackers(controller.settings):
            loops.append(group.create_task(_track(controller, stop, Track(tracker))))
        group.create_task(_cut_short(loops, stop))


async def _cut_short(loops: Sequence["asyncio.Task[None]"], stop: asyncio.Event) -> None:
    """Cancel the loops that are still in a step `LEAVE_WITHIN_S` seconds after `stop` was set."""
    await stop.wait()
    _, late = await asyncio.wait(loops, timeout=LEAVE_WITHIN_S)
    for loop in late:
        loop.cancel()


async def _deliver(controller: Controller, stop: asyncio.Event) -> None:
    async with Deliver() as deliver:
        await _repeat(controller, stop, (deliver.reconcile,))


async def _evaluate(controller: Controller, stop: asyncio.Event) -> None:
    async with Evaluate() as evaluate:
        await _repeat(controller, stop, (evaluate.reconcile,))


async def _track(controller: Controller, stop: asyncio.Event, track: Track) -> None:
    try:
        await _repeat(controller, stop, (track.reconcile,))
    finally:
        await track.leave()


async def _repeat(controller: Controller, stop: asyncio.Event, reconcilers: Sequence[Reconcile]) -> None:
    troubles: dict[str, str] = {}
    while not stop.is_set():
        for reconcile in reconcilers:
            await _step(controller, reconcile, troubles)
        await wait(stop, controller.settings.reconcile_every_s)


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
