"""API keys: made once, shown once, kept only as a digest."""

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.tables import ApiKey
from service.errors import NotFound, Unauthorized
from service.ids import new_id


async def create_key(session: AsyncSession, *, project_id: str, name: str) -> tuple[ApiKey, str]:
    """A new key's row and the key itself, `pk-` and 43 characters: the only time it can be had.

    project_id: keys of one project see the same jobs and files.
    """
    plaintext = f"pk-{secrets.token_urlsafe(32)}"
    key = ApiKey(id=new_id("key"), project_id=project_id, name=name, digest=_digest(plaintext), created_at=utc_now())
    session.add(key)
    await session.flush()
    return key, plaintext


async def verify_key(session: AsyncSession, plaintext: str) -> ApiKey:
    """Raises Unauthorized for an unknown or a revoked key."""
    # 256 random bits need no slow hash, and a look-up by digest tells an attacker nothing by its timing.
    found = select(ApiKey).where(ApiKey.digest == _digest(plaintext), ApiKey.revoked_at.is_(None))
    key = (await session.scalars(found)).one_or_none()
    if key is None:
        raise Unauthorized
    return key


async def list_keys(session: AsyncSession) -> Sequence[ApiKey]:
    """All keys, revoked ones too, oldest first."""
    return (await session.scalars(select(ApiKey).order_by(ApiKey.id))).all()


async def revoke_key(session: AsyncSession, key_id: str) -> ApiKey:
    """From the next request on the key is refused. Idempotent; NotFound if there is none with this ID."""
    key = await session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"There is no key '{key_id}'.")
    key.revoked_at = key.revoked_at or utc_now()
    await session.flush()
    return key


def _digest(plaintext: str) -> str:
    return hashlib.sha256(plaintext.encode(errors="replace")).hexdigest()
