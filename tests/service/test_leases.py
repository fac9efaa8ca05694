import asyncio

import pytest
from sqlalchemy import select, text, update

from service import leases
from service.clock import utc_now
from service.db import tables
from service.db.clock import database_time
from service.db.session import Database
from service.leases import Lease, LeaseLost
from tests.service.conftest import add_job

LONG_S = 60.0


async def taken(database: Database, holder: str) -> Lease:
    lease = await leases.acquire(database, "work", holder, LONG_S)
    assert lease is not None
    return lease


async def expire(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(update(tables.Lease).values(expires_at=database_time(-0.001)))


async def test_of_many_that_ask_at_once_one_gets_the_lease(database: Database) -> None:
    for _ in range(2):  # with no row yet, and with an expired one
        answers = await asyncio.gather(*(leases.acquire(database, "work", str(n), LONG_S) for n in range(8)))
        assert [answer is not None for answer in answers].count(True) == 1
        await expire(database)


async def test_leases_of_different_names_are_apart(database: Database) -> None:
    await taken(database, "a")
    assert await leases.acquire(database, "work", "b", LONG_S) is None
    assert await leases.acquire(database, "other work", "b", LONG_S) is not None


async def test_a_lease_that_is_renewed_is_not_taken_and_one_that_is_released_is(database: Database) -> None:
    lease = await taken(database, "a")
    until = lease.held_until
    await leases.renew(database, lease)
    assert lease.held_until > until
    assert await leases.acquire(database, "work", "b", LONG_S) is None
    await leases.release(database, lease)
    assert (await taken(database, "b")).term == lease.term + 1


async def test_an_expired_lease_is_lost_though_nobody_has_taken_it(database: Database) -> None:
    lease = await taken(database, "a")
    await expire(database)
    with pytest.raises(LeaseLost):
        await leases.renew(database, lease)
    assert await leases.acquire(database, "work", "b", LONG_S) is not None


async def test_a_holder_that_was_replaced_changes_nothing_any_more(database: Database) -> None:
    before = await taken(database, "a")
    await expire(database)
    now = await taken(database, "b")

    async def write_late() -> None:
        async with database.transaction() as session:
            await add_job(session)
            await leases.hold(session, before)

    with pytest.raises(LeaseLost):
        await write_late()
    async with database.reading() as session:
        assert (await session.scalars(select(tables.Job))).all() == []
    await leases.release(database, before)  # not its own any more
    await leases.renew(database, now)


async def test_a_take_over_waits_for_a_transaction_under_the_lease(database: Database) -> None:
    lease = await taken(database, "a")
    async with database.transaction() as session:
        await leases.hold(session, lease)
        # By then it has expired for everybody else, on SQLite and PostgreSQL alike: nobody can write the row now.
        waiting = asyncio.create_task(_take_when_expired(database))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await add_job(session)
    taken_over, jobs_seen = await waiting
    assert taken_over is not None
    assert jobs_seen == 1


async def _take_when_expired(database: Database) -> tuple[Lease | None, int]:
    await expire(database)
    lease = await leases.acquire(database, "work", "b", LONG_S)
    async with database.reading() as session:
        return lease, len((await session.scalars(select(tables.Job))).all())


def test_a_holder_knows_by_its_own_clock_when_it_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("service.leases.time.monotonic", lambda: now)
    lease = Lease("work", "a", 1, length_s=10, held_until=now + 10)
    now += 9.9
    lease.check()
    now += 0.1
    with pytest.raises(LeaseLost):
        lease.check()


async def test_the_time_is_the_databases_and_runs_on_in_a_transaction(database: Database) -> None:
    async with database.transaction() as session:
        first, later = [
            (await session.execute(select(database_time(offset_s)))).scalar_one() for offset_s in (0.0, 90.5)
        ]
        await session.execute(text("SELECT 1"))
        after = (await session.execute(select(database_time()))).scalar_one()
    assert abs((first - utc_now()).total_seconds()) < 30  # the same machine
    assert 90 < (later - first).total_seconds() < 120
    assert after >= first
