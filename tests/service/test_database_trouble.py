"""What a real database says when it is in trouble, and when it was asked something wrong."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from service.db.session import Database
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


@pytest.mark.parametrize(
    ("sqlstate", "trouble"), [("40P01", True), ("53300", True), ("25006", True), ("22021", False), ("23505", False)]
)
async def test_what_a_server_says_tells_trouble_from_a_bug(database: Database, sqlstate: str, trouble: bool) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no such states")
    raised = await said(database, f"DO $$ BEGIN RAISE EXCEPTION 'as told' USING ERRCODE = '{sqlstate}'; END $$")
    assert does_not_answer(raised) is trouble
