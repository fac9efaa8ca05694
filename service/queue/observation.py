"""The cluster as a controller last saw it, in the one row that every controller and API replica decides by."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.cluster.http import ClusterError
from service.cluster.nodes import RayNodes
from service.db.session import Database
from service.db.tables import ClusterView
from service.queue.capacity import Capacity, Node
from service.settings import Settings

ROW = 1  # there is this one
_VIEW = select(ClusterView).where(ClusterView.id == ROW)
_HELD = _VIEW.with_for_update()


async def read(session: AsyncSession, *, lock: bool = False) -> ClusterView | None:
    """None if no controller has ever looked. lock: other controllers that plan wait until this transaction ends."""
    found = await session.scalars(_HELD if lock else _VIEW, execution_options={"populate_existing": True})
    return found.one_or_none()


def capacity_of(view: ClusterView | None, settings: Settings) -> Capacity | None:
    """What the plan may count on; None if it is unknown, too old or grows on demand."""
    if settings.autoscaling:
        return None
    return seen(view, settings)


def seen(view: ClusterView | None, settings: Settings) -> Capacity | None:
    """The nodes that were there; None if that is unknown or too old."""
    if view is None or view.observed_at is None:
        return None
    if utc_now() - view.observed_at > timedelta(seconds=settings.cluster_view_max_age_s):
        return None
    return Capacity(nodes_of(view), view.observed_at)


def nodes_of(view: ClusterView | None) -> tuple[Node, ...]:
    """However long ago they were seen."""
    return tuple(Node(**node) for node in view.nodes) if view is not None else ()


async def observe(database: Database, nodes: RayNodes, settings: Settings, every_s: float | None = None) -> None:
    """Look at the cluster if the last look is `every_s` old, by default `settings.cluster_view_every_s`; that it does
    not answer is noted, and is no error: what was seen before counts until it is too old."""
    every_s = settings.cluster_view_every_s if every_s is None else every_s
    async with database.reading() as session:
        view = await read(session)
    if view is not None and utc_now() - view.tried_at < timedelta(seconds=every_s):
        return
    try:
        found: Sequence[Node] | None = await nodes.in_pools()
        trouble = None
    except ClusterError as error:
        found, trouble = None, str(error)
    try:
        async with database.transaction() as session:
            await _write(session, found, trouble)
    except IntegrityError:  # another controller made the row at the same time, from the same cluster
        return


async def _write(session: AsyncSession, found: Sequence[Node] | None, trouble: str | None) -> None:
    now = utc_now()
    view = await read(session, lock=True)
    if view is None:
        view = ClusterView(id=ROW, nodes=[], observed_at=None, tried_at=now)
        session.add(view)
    view.tried_at, view.trouble = now, trouble
    if found is not None:
        view.nodes, view.observed_at = [asdict(node) for node in found], now
    await session.flush()
