"""What a real database says when it is in trouble, and when it was asked something wrong."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from service.db.session import Database
from service.db.tables import Job
from service.db.trouble import does_not_answer


async def said(database: Database, statement: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as told:
        async with database.reading() as session:
            await session.execute(text(statement))
    return told.value


async def test_a_wrong_query_is_no_trouble_and_a_missing_upgrade_is(database: Database) -> None:
    assert not does_not_answer(await said(database, "SELECT nonsense("))
    assert does_not_answer(await said(database, "SELECT * FROM missing"))
    assert does_not_answer(await said(database, "SELECT missing FROM jobs"))


async def test_a_server_that_shuts_down_is_trouble(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no server")
    assert does_not_answer(await said(database, "SELECT pg_terminate_backend(pg_backend_pid())"))


async def read(database: Database) -> None:
    async with database.reading():
        pass


async def write(database: Database) -> None:
    async with database.transaction():
        pass


async def look_up(database: Database) -> None:
    await database.look_up(select(Job.id))


@pytest.mark.parametrize("ask", [read, write, look_up])
async def test_a_connection_that_is_gone_before_it_was_set_up_is_trouble(
    database: Database, ask: Callable[[Database], Awaitable[None]]
) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no server")

    def lose(connection: Any, _record: object) -> None:
        connection.driver_connection.terminate()

    for engine in (database.engine, database._read_engine):
        event.listen(engine.sync_engine, "connect", lose, insert=True)  # before SQLAlchemy's own
    with pytest.raises(OperationalError, match="connection is closed") as told:
        await ask(database)
    assert does_not_answer(told.value)


@pytest.mark.parametrize(
    ("sqlstate", "trouble"), [("40P01", True), ("53300", True), ("25006", True), ("22021", False), ("23505", False)]
)
async def test_what_a_server_says_tells_trouble_from_a_bug(database: Database, sqlstate: str, trouble: bool) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no such states")
    raised = await said(database, f"DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '{sqlstate}'; END $$")
    assert does_not_answer(raised) is trouble
