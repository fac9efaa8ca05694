"""Of several controllers, one reconciles: the holder of the lease `controller`. The others stand by.

Tuned by `settings.lease_s`. The holder renews three times in that time; if it cannot, or is too late, its step is
cancelled where it is, and every way out is shut: the database refuses its transactions, and calls to the cluster are
not sent (`service.leases`). What was sent before is harmless twice: a submission is known by its attempt's ID, and
Serve's list is put again by whoever finds that it differs.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncSession

from service import leases
from service.db.session import Database
from service.db.trouble import TROUBLE
from service.leases import Lease, LeaseLost
from service.settings import Settings

log = logging.getLogger(__name__)

NAME = "controller"


class LeasedDatabase(Database):
    """A database whose transactions commit only under the lease."""

    def __init__(self, database: Database, lease: Lease) -> None:
        self.engine = database.engine
        self._database = database
        self._lease = lease

    @asynccontextmanager
    async def transaction(self, *, brief: bool = False) -> AsyncIterator[AsyncSession]:
        """As any; raises LeaseLost at its begin."""
        async with self._database.transaction(brief=brief) as session:
            await leases.hold(session, self._lease)
            yield session

    @asynccontextmanager
    async def reading(self, *, brief: bool = False) -> AsyncIterator[AsyncSession]:
        async with self._database.reading(brief=brief) as session:
            yield session

    async def look_up(self, query: Select[Any], **parameters: object) -> Row[Any] | None:
        return await self._database.look_up(query, **parameters)


async def lead(
    settings: Settings, database: Database, stop: asyncio.Event, work: Callable[[Lease], Awaitable[None]]
) -> None:
    """Run `work` whenever the lease is ours, from the start each time; return when it returns, or when `stop` is set
    while another one leads.

    `work` is cancelled when the lease is lost, and may raise LeaseLost.
    """
    holder = f"{socket.gethostname()}:{os.getpid()}"
    trouble = ""
    while not stop.is_set():
        try:
            lease = await leases.acquire(database, NAME, holder, settings.lease_s)
        except TROUBLE as error:
            lease = None
            if trouble != str(error):
                log.warning("cannot ask for the lease: %s", error)
            trouble = str(error)
        if lease is not None:
            trouble = ""
            if await _lead_with(lease, database, work):
                return
        await wait(stop, settings.reconcile_every_s)


async def wait(stop: asyncio.Event, seconds: float) -> None:
    """Until `stop` is set, or for so long."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _lead_with(lease: Lease, database: Database, work: Callable[[Lease], Awaitable[None]]) -> bool:
    """Whether `work` came to its end."""
    log.info("leading, as %s (term %d)", lease.holder, lease.term)
    lost = False
    try:
        async with asyncio.timeout_at(_on_loop(lease)) as deadline, asyncio.TaskGroup() as group:
            renewing = group.create_task(_renew(lease, database, deadline))
            await work(lease)
            renewing.cancel()
    except* (LeaseLost, TimeoutError):
        lost = True
        log.warning("not leading any more: the lease was not renewed in time")
    finally:
        if not lost:  # whatever else went wrong: nothing of the work goes on, and another one may lead at once
            await _release(lease, database)
    return not lost


async def _release(lease: Lease, database: Database) -> None:
    try:
        await leases.release(database, lease)
    except TROUBLE as error:
        log.warning("the lease was not released and will expire: %s", error)


async def _renew(lease: Lease, database: Database, deadline: asyncio.Timeout) -> None:
    while True:
        await asyncio.sleep(lease.length_s / 3)
        try:
            await leases.renew(database, lease)
        except TROUBLE as error:
            log.warning("the lease is not renewed yet: %s", error)
        else:
            if deadline.expired():  # a moment before the answer came: the work is being ended
                return
            deadline.reschedule(_on_loop(lease))


def _on_loop(lease: Lease) -> float:
    """When it expires, by the running loop's clock."""
    return asyncio.get_running_loop().time() + lease.held_until - time.monotonic()
