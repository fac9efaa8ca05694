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
