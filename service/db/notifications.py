"""PostgreSQL's notifications of what changes about jobs: one listening connection for a process.

The triggers that send them are in the migrations. A notification is only a hint to look: one is lost with every
connection, so whoever is told reads the tables, and reads them once more when a connection is made anew.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service.db.session import Database
from service.db.trouble import TROUBLE

log = logging.getLogger(__name__)

CHANNEL = "plumbline_jobs"  # as in the migrations; the payload is the job's ID

_RECONNECT_S = 1.0
_PROBE_EVERY_S = 10.0  # a connection that has silently gone is noticed within twice this

_TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, *TROUBLE)  # here the driver is asked without SQLAlchemy


async def listen(database: Database, changed: Callable[[str], None], listening: Callable[[bool], None]) -> None:
    """Call `changed(job_id)` after every commit that has changed the job, until cancelled.

    listening: called with True when all changes from then on will be told, and with False when they may not be.
    """
    engine = create_async_engine(database.engine.url, poolclass=NullPool)
    trouble = ""
    while True:
        try:
            async with engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                lost = asyncio.Event()
                driver.add_termination_listener(lambda _connection, lost=lost: lost.set())
                await driver.add_listener(CHANNEL, lambda _connection, _pid, _channel, job_id: changed(job_id))
                listening(True)
                trouble = ""
                await _until_lost(driver, lost)
        except _TROUBLE as error:
            if trouble != str(error):
                log.warning("changes of jobs are polled for, while PostgreSQL cannot tell them: %s", error)
            trouble = str(error)
        finally:
            listening(False)
        await asyncio.sleep(_RECONNECT_S)


async def _until_lost(driver: Any, lost: asyncio.Event) -> None:
    while not lost.is_set():
        try:
            async with asyncio.timeout(_PROBE_EVERY_S):
                await lost.wait()
        except TimeoutError:
            async with asyncio.timeout(_PROBE_EVERY_S):
                await driver.execute("SELECT 1")
