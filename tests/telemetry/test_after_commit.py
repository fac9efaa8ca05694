"""What is told of a transaction: all of it after the commit, nothing after a rollback."""

import pytest

from service.db.session import Database
from service.telemetry.after_commit import after_commit
from tests.service.conftest import add_job


async def test_it_is_told_in_order_once_the_rows_can_be_seen(database: Database) -> None:
    told: list[str] = []
    async with database.transaction() as session:
        await add_job(session)
        after_commit(session, lambda: told.append("first"))
        after_commit(session, lambda: told.append("second"))
        assert told == []
    assert told == ["first", "second"]


async def test_what_is_rolled_back_is_never_told_even_by_a_later_commit(database: Database) -> None:
    told: list[str] = []

    async def fail() -> None:
        async with database.transaction() as session:
            await add_job(session)
            after_commit(session, lambda: told.append("undone"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with database.transaction() as session:
        await add_job(session)
        after_commit(session, lambda: told.append("done"))
    assert told == ["done"]
