"""The conversations of one person with models of a project: the newest `MOST` of them."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from service.clock import utc_now
from service.conversations.content import Content
from service.db.conversation_tables import Conversation
from service.db.session import Database
from service.errors import IdempotencyConflict, NotFound
from service.ids import is_id, new_id
from service.jobs.service import check_key
from service.keys.service import Caller
from service.paging import checked_cursor, cut
from service.text import storable

MOST = 100  # of one person in a project; older ones go
_START = 200


async def create(
    database: Database, caller: Caller, content: Content, idempotency_key: str | None = None
) -> tuple[Conversation, bool]:
    """Keep it; returns it and whether an earlier request with this key had kept it, as it is by now.

    Raises InvalidRequest for what is no key, and IdempotencyConflict if the caller used it with another body.
    """
    check_key(idempotency_key)
    columns = _columns(content)
    digest = hashlib.sha256(json.dumps(columns["content"], sort_keys=True).encode()).hexdigest()
    now = utc_now()
    made = Conversation(
        id=new_id("conv"),
        project_id=caller.project_id,
        owner_id=_owner(caller),
        idempotency_key=idempotency_key,
        body_sha256=digest,
        created_at=now,
        updated_at=now,
        **columns,
    )
    try:
        async with database.transaction() as session:
            session.add(made)
            await session.flush()
            newest = select(Conversation.id).where(_theirs(caller)).order_by(Conversation.id.desc()).limit(MOST)
            await session.execute(delete(Conversation).where(_theirs(caller), Conversation.id.not_in(newest)))
        return made, False
    except IntegrityError:
        kept = await _kept(database, caller, idempotency_key, digest) if idempotency_key is not None else None
        if kept is None:
            raise
        return kept, True


async def replace(session: AsyncSession, caller: Caller, conversation_id: str, content: Content) -> Conversation:
    """Raises NotFound."""
    found = await get(session, caller, conversation_id)
    for name, value in _columns(content).items():
        setattr(found, name, value)
    found.updated_at = utc_now()
    await session.flush()
    return found


async def get(session: AsyncSession, caller: Caller, conversation_id: str) -> Conversation:
    """Raises NotFound, also for somebody else's."""
    query = select(Conversation).where(Conversation.id == conversation_id, _theirs(caller))
    found = (await session.scalars(query)).one_or_none() if is_id("conv", conversation_id) else None
    if found is None:
        raise NotFound("There is no such conversation among yours. GET /v1/conversations lists them.")
    return found


async def page(
    session: AsyncSession, caller: Caller, *, limit: int, cursor: str | None
) -> tuple[Sequence[Conversation], str | None]:
    """Newest first, without their contents."""
    query = select(Conversation).where(_theirs(caller)).options(defer(Conversation.content, raiseload=True))
    if cursor is not None:
        query = query.where(Conversation.id < checked_cursor(cursor, "conv"))
    rows = (await session.scalars(query.order_by(Conversation.id.desc()).limit(limit + 1))).all()
    return cut(rows, limit, lambda one: one.id)


async def remove(session: AsyncSession, caller: Caller, conversation_id: str) -> None:
    """Raises NotFound."""
    await session.delete(await get(session, caller, conversation_id))


async def remove_all(session: AsyncSession, caller: Caller) -> None:
    await session.execute(delete(Conversation).where(_theirs(caller)))


async def _kept(database: Database, caller: Caller, idempotency_key: str, digest: str) -> Conversation | None:
    query = select(Conversation).where(_theirs(caller), Conversation.idempotency_key == idempotency_key)
    async with database.reading() as session:
        kept = (await session.scalars(query)).one_or_none()
    if kept is not None and kept.body_sha256 != digest:
        raise IdempotencyConflict(
            f"This Idempotency-Key kept {kept.id} with other turns: replace them with PUT, or use a new key.",
            conversation_id=kept.id,
        )
    return kept


def _columns(content: Content) -> dict[str, Any]:
    kept = storable(content.model_dump(mode="json"))
    return {
        "start": kept["turns"][0]["prompt"][:_START],
        "models": kept["models"],
        "num_turns": len(kept["turns"]),
        "content": kept,
    }


def _owner(caller: Caller) -> str:
    """A person's history outlives their keys."""
    return caller.user_id or caller.key_id


def _theirs(caller: Caller) -> ColumnElement[bool]:
    return (Conversation.project_id == caller.project_id) & (Conversation.owner_id == _owner(caller))
