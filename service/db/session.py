"""Connections and transactions: one `Database` per process, over SQLite or PostgreSQL."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any

import asyncpg
from sqlalchemy import Connection, Row, Select, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from service.db import sqlite

SQLITE_BUSY_MS = 30_000  # how long a writer waits for another one's transaction
# A process that stands still in a transaction loses it after so long, and with it the locks that others wait for.
POSTGRESQL_IDLE_MS = 10_000
# Compiling a statement is for those that run for minutes. PostgreSQL estimates that the queue's query costs much, and
# compiled for 4 s what then took 0.3 s.
_POSTGRESQL = {"jit": "off"}
_PING_AFTER_S = 1.0
# Of each pool, all of them kept: a connection that is made for a burst and dropped after it costs more than the burst,
# and each has its own prepared statements, so the one that was used last is used next.
_POOL: dict[str, Any] = {"pool_size": 15, "max_overflow": 0, "pool_use_lifo": True}


class Database:
    """An engine whose write transactions take turns, and whose readers never wait for them.

    SQLite's own BEGIN takes the write lock at the first write, where two transactions that have both read can only
    fail; BEGIN IMMEDIATE takes it at the start, so the second one waits. Those of one process wait in a line of its
    own: SQLite's waiters sleep and look again, and the one that has waited longest sleeps longest. Objects stay
    readable after the commit.

    Each statement of a reader sees what is committed by then, in a transaction or not; so there is none, and nothing to
    begin and to end, which is most of what a short query costs.
    """

    def __init__(self, url: str) -> None:
        self._line: asyncio.Lock | None = None
        if (parsed := make_url(url)).get_backend_name() == "sqlite":
            pool = _POOL if parsed.database else {}  # what is in memory has one connection
            creator = sqlite.connector(parsed.database or ":memory:")
            self.engine = create_async_engine(url, async_creator=creator, **pool)
            event.listen(self.engine.sync_engine, "connect", _configure_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
            self._read_engine = self.engine.execution_options(sqlite_begin=None)
            self._line = asyncio.Lock()
        else:
            timeout = {"idle_in_transaction_session_timeout": str(POSTGRESQL_IDLE_MS)} | _POSTGRESQL
            self.engine = _postgresql_engine(url, timeout)
            read_only = {"default_transaction_read_only": "on"} | _POSTGRESQL
            self._read_engine = _postgresql_engine(url, read_only, isolation_level="AUTOCOMMIT")

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def transaction(self, *, brief: bool = False) -> AsyncIterator[AsyncSession]:
        """A session that may write; commits at the end of the block, rolls back if the block raises.

        brief: its statements look up and write single rows. SQLite then runs them in the event loop's thread, which
        takes less time than to hand them to another; to begin, which may wait for other processes, and to commit, which
        waits for the disk, stay in that other one.

        Raises SQLAlchemy's OperationalError if the database does not answer.
        """
        async with (
            self._turn(),
            AsyncSession(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            connection = await _connect(session)
            with self._inline(connection.sync_connection, brief):
                yield session

    @asynccontextmanager
    async def reading(self, *, brief: bool = False) -> AsyncIterator[AsyncSession]:
        """A session that only reads; holds up nobody. Arguments and errors are those of `transaction`."""
        async with AsyncSession(self._read_engine, expire_on_commit=False) as session:
            connection = await _connect(session)
            with self._inline(connection.sync_connection, brief):
                yield session

    async def look_up(self, query: Select[Any], **parameters: object) -> Row[Any] | None:
        """The row that a query of columns finds, None if there is none: for what every request waits for, since a
        session adds to it more than the query itself takes. Raises MultipleResultsFound, and OperationalError as
        `transaction` does.
        """

        def find() -> Row[Any] | None:
            with self._read_engine.sync_engine.connect() as connection, self._inline(connection, brief=True):
                return connection.execute(query, parameters).one_or_none()

        with _connecting():
            return await greenlet_spawn(find)  # as SQLAlchemy's asyncio classes do for each of their calls

    def _inline(self, connection: Connection | None, brief: bool) -> AbstractContextManager[None]:
        if not brief or self._line is None:
            return nullcontext()
        assert connection is not None
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite.Connection)
        return driver.inline()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Raises OperationalError if it does not come for as long as another process's would be waited for."""
        if self._line is None:
            yield
            return
        try:
            async with asyncio.timeout(SQLITE_BUSY_MS / 1000):
                await self._line.acquire()
        except TimeoutError as error:
            raise OperationalError(None, None, error) from error
        try:
            yield
        finally:
            self._line.release()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees the database as it was at its first statement, whatever is written meanwhile."""
        options = {"sqlite_begin": "BEGIN"} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        async with self.engine.execution_options(**options).connect() as connection:
            yield connection

    async def close(self) -> None:
        await self.engine.dispose()
        if self._read_engine is not self.engine:
            await self._read_engine.dispose()


async def _connect(session: AsyncSession) -> AsyncConnection:
    with _connecting():
        return await session.connection()


@contextmanager
def _connecting() -> Iterator[None]:
    """What SQLAlchemy lets through as it is: that nobody listens, and that a server which goes away took the connection
    and dropped it before its types were set up."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
        raise OperationalError(None, None, error) from error


def _postgresql_engine(url: str, server_settings: dict[str, str], **options: Any) -> AsyncEngine:
    """With a pool that asks whether a connection still lives, if it has lain idle."""
    engine = create_async_engine(url, connect_args={"server_settings": server_settings}, **_POOL, **options)

    @event.listens_for(engine.sync_engine, "checkin")
    def checkin(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        idle_s = time.monotonic() - record.info.get("idle_since", time.monotonic())
        if idle_s < _PING_AFTER_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # the others have gone as well: the pool connects anew

    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_begin_sqlite` does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
    _use_wal(connection, cursor)
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_wal(connection: Any, cursor: Any) -> None:
    """Of two that open a new file at once, SQLite refuses one at this step without its usual wait."""
    deadline = time.monotonic() + SQLITE_BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            connection.run_async(lambda _: asyncio.sleep(0.01))
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    if begin := connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"):
        connection.exec_driver_sql(begin)
