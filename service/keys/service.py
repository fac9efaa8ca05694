"""API keys: made once, shown once, kept only as a digest."""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import ApiKey
from service.db.tenant_tables import Membership, User
from service.errors import Forbidden, InvalidRequest, NotFound, Unauthorized
from service.ids import is_id, new_id
from service.keys.roles import Role
from service.paging import checked_cursor, cut
from service.projects import service as projects

_keys, _members, _users = ApiKey.__table__.c, Membership.__table__.c, User.__table__.c
# Made once: every request asks it, and to put it together takes longer than to answer it.
_CALLER = (
    select(
        _keys.id,
        _keys.project_id,
        _keys.user_id,
        _keys.role,
        _keys.name,
        _members.role.label("member_role"),
        _users.name.label("user_name"),
    )
    .outerjoin_from(
        ApiKey.__table__,
        Membership.__table__,
        and_(_members.project_id == _keys.project_id, _members.user_id == _keys.user_id),
    )
    .outerjoin(User.__table__, _users.id == _keys.user_id)
    .where(
        _keys.revoked_at.is_(None),
        or_(_keys.expires_at.is_(None), _keys.expires_at > bindparam("now")),
    )
)
_BY_DIGEST = _CALLER.where(_keys.digest == bindparam("digest"))

_PREFIX = len("pk-") + 6  # of 43 characters: enough to tell keys apart, and 220 bits are left to guess


@dataclass(frozen=True)
class Caller:
    """Who asks, and what they may do: the lower of what the key and its user's membership say."""

    project_id: str
    key_id: str
    user_id: str | None
    role: Role
    name: str  # for people: the user's, or the key's if it is no user's


async def create_key(
    session: AsyncSession,
    *,
    project_id: str,
    name: str,
    role: Role = Role.MEMBER,
    user_id: str | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key's row and the key itself, `pk-` and 43 characters: the only time it can be had.

    project_id: keys of one project see the same jobs and files; a project that is not there yet is made.
    role: what the key may do, as far as its user may; an operator's key does not depend on a membership.
    expires_at: must be in the future and have a time zone.
    """
    if expires_at is not None and expires_at <= utc_now():
        raise InvalidRequest("`expires_at` is in the past: such a key would never work.", field="expires_at")
    await projects.ensure(session, project_id)
    plaintext = f"pk-{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=new_id("key"),
        project_id=project_id,
        user_id=user_id,
        role=role,
        name=name,
        prefix=plaintext[:_PREFIX],
        digest=digest(plaintext),
        created_at=utc_now(),
        expires_at=expires_at.astimezone(UTC) if expires_at is not None else None,
    )
    session.add(key)
    await session.flush()
    await audit.record(session, key.id, project_id=project_id)
    return key, plaintext


async def create_key_for(
    session: AsyncSession,
    maker: Caller,
    *,
    project_id: str,
    user: str | None,
    name: str,
    role: Role,
    expires_at: datetime | None,
) -> tuple[ApiKey, str]:
    """What an admin does: a key for a member of the project, by default for the admin.

    Raises Forbidden for a role above the maker's own, and InvalidRequest if the user is no member or has a lower role.
    """
    if not maker.role.covers(role):
        raise Forbidden(f"A key with the role {maker.role} makes no key with the role {role}.")
    user_id = maker.user_id
    if user is not None:
        user_id = (await session.scalars(select(User.id).where(User.name == user))).one_or_none()
    if user_id is not None and role is not Role.OPERATOR:
        membership = await session.get(Membership, (project_id, user_id))
        if membership is None or not membership.role.covers(role):
            has = f"is {membership.role}" if membership is not None else "is no member"
            raise InvalidRequest(
                f"{user or 'The user of your own key'} {has} in {project_id}, and a key can do no more than its user: "
                "change that with POST /v1/members.",
                field="role" if membership is not None else "user",
            )
    elif user is not None and user_id is None:
        raise InvalidRequest(f"There is no user '{user}': POST /v1/members makes one.", field="user")
    return await create_key(
        session, project_id=project_id, name=name, role=role, user_id=user_id, expires_at=expires_at
    )


async def verify_key(database: Database, plaintext: str) -> Caller:
    """Raises Unauthorized for a key that is unknown, revoked or expired, or whose user has left the project."""
    # 256 random bits need no slow hash, and a look-up by digest tells an attacker nothing by its timing.
    return _caller(await database.look_up(_BY_DIGEST, now=utc_now(), digest=digest(plaintext)))


async def good_keys(session: AsyncSession, key_ids: Collection[str]) -> set[str]:
    """Those of the keys that `verify_key` would not refuse now."""
    rows = await session.execute(_CALLER.where(_keys.id.in_(key_ids)), {"now": utc_now()})
    return {key.id for key in rows if _role_now(key) is not None}


async def caller_with(session: AsyncSession, which: ColumnElement[bool]) -> Caller:
    """What the one key that `which` chooses may do now. Raises Unauthorized as `verify_key` does."""
    return _caller((await session.execute(_CALLER.where(which), {"now": utc_now()})).one_or_none())


def _caller(key: Any) -> Caller:
    """key: a row of `_CALLER`, None if there is none."""
    role = _role_now(key) if key is not None else None
    if key is None or role is None:
        raise Unauthorized
    name = key.user_name or key.name
    return Caller(project_id=key.project_id, key_id=key.id, user_id=key.user_id, role=role, name=name)


def _role_now(key: Any) -> Role | None:
    """key: a row of `_CALLER`. None: its user has left the project."""
    role: Role = key.role
    if key.user_id is None or role is Role.OPERATOR:
        return role
    return min(role, key.member_role, key=lambda one: one.rank) if key.member_role is not None else None


async def page(
    session: AsyncSession, project_id: str, *, limit: int, cursor: str | None
) -> tuple[Sequence[ApiKey], str | None]:
    """At most `limit` of the project's keys, as `list_keys` orders them, from after `cursor`; and the next cursor, None
    at the end. Raises InvalidRequest."""
    chosen = select(ApiKey).where(ApiKey.project_id == project_id)
    if cursor is not None:
        chosen = chosen.where(ApiKey.id > checked_cursor(cursor, "key"))
    keys = (await session.scalars(chosen.order_by(ApiKey.id).limit(limit + 1))).all()
    return cut(keys, limit, lambda key: key.id)


async def list_keys(session: AsyncSession, project_id: str | None = None) -> Sequence[ApiKey]:
    """All keys, or those of one project; revoked ones too, oldest first."""
    chosen = select(ApiKey).order_by(ApiKey.id)
    if project_id is not None:
        chosen = chosen.where(ApiKey.project_id == project_id)
    return (await session.scalars(chosen)).all()


async def revoke_key(
    session: AsyncSession, key_id: str, by: Caller | None = None, project_id: str | None = None
) -> ApiKey:
    """From the next request on the key is refused. Idempotent.

    by, project_id: who revokes a key of which project; without them somebody at the database does. Raises NotFound if
    there is no such key (in the project), and Forbidden for a key with a role above that of `by`.
    """
    key = await session.get(ApiKey, key_id) if is_id("key", key_id) else None
    if key is None or project_id not in (None, key.project_id):
        raise NotFound(f"There is no key '{key_id}'.")
    if by is not None and not by.role.covers(key.role):
        raise Forbidden(f"A key with the role {by.role} revokes no key with the role {key.role}.")
    key.revoked_at = key.revoked_at or utc_now()
    await session.flush()
    await audit.record(session, key.id, project_id=key.project_id)
    return key


def digest(plaintext: str) -> str:
    return hashlib.sha256(plaintext.encode(errors="replace")).hexdigest()
