import asyncio
from datetime import timedelta

from sqlalchemy import select, update

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Call
from service.jobs.calls import WINDOW, key_of_call

BODY = "0" * 64


async def first(database: Database, project_id: str = "ada", body: str = BODY, ago: float = 0) -> str:
    arrived = utc_now() - timedelta(seconds=ago)
    return await key_of_call(database, project_id, body, arrived=arrived, is_retry=False)


async def retry(database: Database, project_id: str = "ada", body: str = BODY) -> str:
    return await key_of_call(database, project_id, body, arrived=utc_now(), is_retry=True)


async def wait_out(database: Database, time: timedelta) -> None:
    """Let all calls be as old as if `time` had passed."""
    async with database.transaction() as session:
        for call in (await session.scalars(select(Call))).all():
            moved = {"created_at": call.created_at - time, "heard_at": call.heard_at - time}
            await session.execute(update(Call).where(Call.id == call.id).values(moved))


async def test_a_retry_belongs_to_the_call_before_it(database: Database) -> None:
    key = await first(database)
    assert [await retry(database), await retry(database)] == [key, key]


async def test_the_same_body_on_purpose_is_another_call(database: Database) -> None:
    assert len({await first(database) for _ in range(3)}) == 3
    newest = await first(database)
    assert await retry(database) == newest


async def test_another_caller_and_another_body_are_other_calls(database: Database) -> None:
    key = await first(database)
    assert key not in (await retry(database, project_id="bob"), await retry(database, body="1" * 64))


async def test_a_retry_of_what_was_never_received_is_a_call_that_further_retries_find(database: Database) -> None:
    key = await retry(database)
    assert await retry(database) == key
    assert await first(database) != key  # it came afterwards: it is wanted once more


async def test_a_first_request_that_was_held_up_behind_its_own_retry_belongs_to_it(database: Database) -> None:
    key = await retry(database)
    assert await first(database, ago=5) == key
    assert await first(database, ago=5) != key  # no call has two first requests


async def test_a_retry_is_believed_for_a_while_after_the_last_one(database: Database) -> None:
    key = await first(database)
    for _ in range(3):
        await wait_out(database, WINDOW - timedelta(seconds=30))
        assert await retry(database) == key
    await wait_out(database, WINDOW)
    assert await retry(database) != key


async def test_calls_that_are_over_leave_nothing(database: Database) -> None:
    for body in ("1" * 64, "2" * 64):
        await first(database, body=body)
    await wait_out(database, WINDOW)
    key = await first(database)
    async with database.reading() as session:
        assert (await session.scalars(select(Call.id))).all() == [key]


async def test_requests_at_the_same_time_are_told_apart(database: Database) -> None:
    keys = await asyncio.gather(*(first(database) for _ in range(8)))
    assert len(set(keys)) == 8
    again = await asyncio.gather(*(retry(database) for _ in range(8)))
    assert len(set(again)) == 1
    assert again[0] in keys
