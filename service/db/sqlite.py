"""SQLite's connections: aiosqlite's, with one change of threads for a statement and none for what needs no database.

aiosqlite hands each call of a cursor to its connection's thread, five for a short query, and each costs more than the
query: the thread must get hold of the interpreter, and the event loop be woken. Here a statement and all of its rows
are one call; and where the caller says that statements are short, they need no other thread at all.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import aiosqlite

_CHUNK = 64  # rows; of aiosqlite's own iteration, which SQLAlchemy does not use


def connector(path: str) -> Callable[[], Awaitable[aiosqlite.Connection]]:
    """For `create_async_engine(async_creator=...)`."""

    async def connect() -> aiosqlite.Connection:
        connection = Connection(lambda: sqlite3.connect(path, check_same_thread=False), _CHUNK)
        connection._thread.daemon = True  # as SQLAlchemy does: a process may end without closing it
        return await connection

    return connect


class Connection(aiosqlite.Connection):
    _is_inline = False

    @contextmanager
    def inline(self) -> Iterator[None]:
        """Statements within the block run in the caller's thread; not commit and rollback. Nothing that was begun
        before may still be running."""
        self._is_inline = True
        try:
            yield
        finally:
            self._is_inline = False

    def cursor(self) -> "_Cursor":  # type: ignore[override] # SQLAlchemy awaits its __aenter__, as it would aiosqlite's
        return _Cursor(self)

    async def rollback(self) -> None:
        if self._conn.in_transaction:
            await super().rollback()

    async def run(self, work: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> tuple[sqlite3.Cursor, list[Any]]:
        """What `work` executes, and all of its rows."""

        def execute() -> tuple[sqlite3.Cursor, list[Any]]:
            cursor = work(self._conn)
            return cursor, cursor.fetchall()

        if self._is_inline:
            return execute()
        done: tuple[sqlite3.Cursor, list[Any]] = await self._execute(execute)  # type: ignore[no-untyped-call]
        return done


class _Cursor:
    """What SQLAlchemy's adapter for asyncio asks of a cursor. Its rows are there once a statement has been executed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        self._take(*await self._connection.run(lambda connection: connection.execute(sql, parameters)))
        return self

    async def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> Self:
        self._take(*await self._connection.run(lambda connection: connection.executemany(sql, parameters)))
        return self

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

    def _take(self, cursor: sqlite3.Cursor, rows: list[Any]) -> None:
        self._rows = rows
        self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
