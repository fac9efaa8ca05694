"""Connections and transactions: one `Database` per process, over SQLite or PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

SQLITE_BUSY_MS = 30_000  # how long a writer waits for another process's transaction
# A process that stands still in a transaction loses it after so long, and with it the locks that others wait for.
POSTGRESQL_IDLE_MS = 10_000


class Database:
    """An engine whose write transactions take turns, and whose readers never wait for them.

    SQLite's own BEGIN takes the write lock at the first write, where two transactions that have both read can only
    fail; BEGIN IMMEDIATE takes it at the start, so the second one waits. Objects stay readable after the commit.
    """

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {}
        if make_url(url).get_backend_name() == "postgresql":
            timeout = {"idle_in_transaction_session_timeout": str(POSTGRESQL_IDLE_MS)}
            options = {"pool_pre_ping": True, "connect_args": {"server_settings": timeout}}
        self.engine = create_async_engine(url, **options)
        self._read_engine = self.engine.execution_options(postgresql_readonly=True, sqlite_begin="BEGIN")
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _configure_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that may write; commits at the end of the block, rolls back if the block raises.

        Raises SQLAlchemy's OperationalError if the database does not answer.
        """
        async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
            await _connect(session)
            yield session

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that only reads; holds up nobody. Raises as `transaction` does."""
        async with AsyncSession(self._read_engine, expire_on_commit=False) as session:
            await _connect(session)
            yield session

    async def close(self) -> None:
        await self.engine.dispose()


async def _connect(session: AsyncSession) -> None:
    try:
        await session.connection()
    except OSError as error:  # which PostgreSQL's driver lets through, when nobody listens
        raise OperationalError(None, None, error) from error


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_begin_sqlite` does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))
