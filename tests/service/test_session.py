import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from service.db import session
from service.db.session import Database


async def test_connections_that_the_server_has_closed_are_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no server")
    monkeypatch.setattr(session, "_PING_AFTER_S", 0.0)
    async with database.reading() as reading, database.transaction() as writing:
        for opened in (reading, writing):  # both pools hold a connection from here on
            await opened.execute(text("SELECT 1"))
    other = Database(database.engine.url.render_as_string(hide_password=False))
    async with other.transaction() as killing:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        await killing.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    await other.close()
    async with database.reading() as reading, database.transaction() as writing:
        for opened in (reading, writing):
            assert (await opened.execute(text("SELECT 1"))).scalar_one() == 1


async def test_postgresql_compiles_no_statement_of_ours(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no compiler of statements")
    async with database.reading() as reading, database.transaction() as writing:
        for opened in (reading, writing):
            assert (await opened.execute(text("SHOW jit"))).scalar_one() == "off"


async def test_a_new_file_that_another_process_sets_up_at_the_same_moment_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "new.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # as within its change to WAL
    asyncio.get_running_loop().call_later(0.2, other.rollback)
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'new.sqlite3'}")
    async with database.transaction() as writing:
        assert (await writing.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
    await database.close()
    other.close()
