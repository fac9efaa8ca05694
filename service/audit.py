"""The audit log: who did what, to what, and how it ended.

A change and its entry are one transaction: services call `record` where they change something, and the entry is there
with the change or not at all. Who does it is told once, at the door (`begin`): the API for a request that may change
something, the command line for a command. What attempts and the controller do is in the jobs' own events.
Entries name things by their IDs and never hold what was sent.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.inserts import Row, insert_all, table_of
from service.db.tenant_tables import AuditEntry
from service.errors import InvalidRequest
from service.ids import is_id, new_id

OK = "ok"
_ENTRIES = table_of(AuditEntry)


@dataclass
class Act:
    """What one request or command does. The API fills in who does it when the key is known."""

    action: str
    request_id: str | None = None
    project_id: str | None = None
    key_id: str | None = None
    user_id: str | None = None
    name: str | None = None  # of who does it, for people
    target: str | None = None
    recorded: bool = False  # by the transaction of a change
    only_reads: bool = False  # it is a POST for its body alone: entries tell of it if it is refused


_current: ContextVar[Act | None] = ContextVar("audit_act", default=None)


@contextmanager
def begin(act: Act) -> Iterator[Act]:
    """Let `act` be what is done until the end of the block."""
    token = _current.set(act)
    try:
        yield act
    finally:
        _current.reset(token)


def current() -> Act | None:
    return _current.get()


def reads_only() -> None:
    """Say that the act under way changes nothing: it leaves an entry only if it is refused."""
    if (act := current()) is not None:
        act.only_reads = True


async def record(
    session: AsyncSession, target: str | None, *, project_id: str | None = None, outcome: str = OK
) -> None:
    """Write the entry of what is being done; nothing if nobody does it (see above).

    target: ID of what is made or changed. project_id: whose it is; by default the caller's.
    """
    with recording(target, project_id=project_id, outcome=outcome) as rows:
        if rows:
            await insert_all(session, rows)


@contextmanager
def recording(target: str | None, *, project_id: str | None = None, outcome: str = OK) -> Iterator[Sequence[Row]]:
    """As `record`, for a block that writes the entry together with what it tells of: the row, or none."""
    act = _current.get()
    project_id = project_id or (act.project_id if act is not None else None)
    if act is None or project_id is None:
        yield []
        return
    entry = {
        "id": new_id("audit"),
        "project_id": project_id,
        "key_id": act.key_id,
        "user_id": act.user_id,
        "action": act.action[:200],
        "target": target[:200] if target is not None else None,
        "outcome": outcome,
        "request_id": act.request_id[:64] if act.request_id is not None else None,
        "created_at": utc_now(),
    }
    yield [(_ENTRIES, entry)]
    act.recorded = True


async def page(
    session: AsyncSession, project_id: str, *, limit: int, cursor: str | None
) -> tuple[Sequence[AuditEntry], str | None]:
    """At most `limit` entries, newest first, from after `cursor`; and the next cursor, None at the end."""
    chosen = select(AuditEntry).where(AuditEntry.project_id == project_id)
    if cursor is not None:
        if not is_id("audit", cursor):
            raise InvalidRequest(
                "'cursor' is not one that this list gave out: use `next_cursor` of the last page as it is.",
                field="cursor",
            )
        chosen = chosen.where(AuditEntry.id < cursor)
    entries = (await session.scalars(chosen.order_by(AuditEntry.id.desc()).limit(limit + 1))).all()
    return entries[:limit], entries[limit - 1].id if len(entries) > limit else None
