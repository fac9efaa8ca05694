"""Leases: of several processes, one at a time does what only one may do.

A lease is a row that its holder must renew before it expires, by the database's clock, so that the clocks of machines
need not agree. A holder that is too late has lost it although nobody may have taken it. What it then still tries is
fenced twice: `Lease.check` fails by its own monotonic clock, for calls to elsewhere, and a transaction that calls
`hold` commits only under a lease that is still held; whoever wants to take the lease over waits for such transactions.
"""

import time
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import tables
from service.db.clock import database_time
from service.db.session import Database

_PLAIN = {"synchronize_session": False}


class LeaseLost(Exception):
    """Another process may do by now what this one was doing: stop."""


@dataclass
class Lease:
    """What its holder knows of it. Made by `acquire`."""

    name: str
    holder: str
    term: int
    length_s: float
    held_until: float = field(default=0.0)  # by time.monotonic(); never later than the row says

    def check(self) -> None:
        """Raises LeaseLost once it has expired."""
        if time.monotonic() >= self.held_until:
            raise LeaseLost(f"the lease '{self.name}' could not be renewed in time")


async def acquire(database: Database, name: str, holder: str, length_s: float) -> Lease | None:
    """Take the lease if nobody holds it; None if somebody does.

    holder: whose it is, for people. length_s: seconds for which it is held without being renewed.
    """
    asked_at = time.monotonic()
    expired = tables.Lease.expires_at <= database_time()
    values = {"holder": holder, "term": tables.Lease.term + 1, "expires_at": database_time(length_s)}
    take = update(tables.Lease).where(tables.Lease.name == name, expired).values(values)
    try:
        async with database.transaction() as session:
            term = (
                await session.execute(take.returning(tables.Lease.term), execution_options=_PLAIN)
            ).scalar_one_or_none()
            if term is None:
                if await session.get(tables.Lease, name) is not None:
                    return None
                term = 1
                row = tables.Lease(name=name, holder=holder, term=term, expires_at=database_time(length_s))
                session.add(row)
    except IntegrityError:  # two made the row at once: the other one has it
        return None
    return Lease(name, holder, term, length_s, asked_at + length_s)


async def renew(database: Database, lease: Lease) -> None:
    """Hold it for another `length_s` seconds from now. Raises LeaseLost if it has expired."""
    asked_at = time.monotonic()
    values = {"expires_at": database_time(lease.length_s)}
    async with database.transaction() as session:
        renewed = update(tables.Lease).where(*_held(lease)).values(values).returning(tables.Lease.term)
        if (await session.execute(renewed, execution_options=_PLAIN)).scalar_one_or_none() is None:
            raise _lost(lease)
    lease.held_until = asked_at + lease.length_s


async def release(database: Database, lease: Lease) -> None:
    """Let another one have it at once. Does nothing if it was lost."""
    values = {"expires_at": database_time()}
    async with database.transaction() as session:
        await session.execute(update(tables.Lease).where(*_held(lease)).values(values), execution_options=_PLAIN)


async def hold(session: AsyncSession, lease: Lease) -> None:
    """Nobody takes the lease before this transaction ends. Raises LeaseLost if it is not held any more."""
    held = select(tables.Lease.term).where(*_held(lease)).with_for_update(read=True)
    if (await session.execute(held)).scalar_one_or_none() is None:
        raise _lost(lease)


def _held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    row = tables.Lease
    return row.name == lease.name, row.term == lease.term, row.expires_at > database_time()


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"the lease '{lease.name}' has expired, and another process may have taken it")
