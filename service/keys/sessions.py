"""A browser's sessions: a key is shown once, and from then on a token in a cookie stands for it.

The token is kept only as a digest. A session may do what its key may do now, and ends with it: every request looks at
the key, so one that is revoked, has expired or whose user has left ends its sessions at once.
"""

import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.tables import ApiKey
from service.db.tenant_tables import BrowserSession
from service.keys.service import Caller, caller_with, digest


async def start(session: AsyncSession, caller: Caller, lifetime_s: float) -> tuple[str, datetime]:
    """The token of a new session, which can be had this once, and when it ends. Those that have ended are removed."""
    now = utc_now()
    await session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= now))
    token = secrets.token_urlsafe(32)
    expires_at = now + timedelta(seconds=lifetime_s)
    session.add(
        BrowserSession(digest=digest(token), key_id=caller.key_id, created_at=now, expires_at=expires_at),
    )
    await session.flush()
    return token, expires_at


async def verify(session: AsyncSession, token: str) -> Caller:
    """Raises Unauthorized for a session that is unknown or has ended, or whose key is no longer good."""
    of_session = select(BrowserSession.key_id).where(
        BrowserSession.digest == digest(token), BrowserSession.expires_at > utc_now()
    )
    return await caller_with(session, ApiKey.id == of_session.scalar_subquery())


async def end(session: AsyncSession, token: str) -> None:
    """Idempotent."""
    await session.execute(delete(BrowserSession).where(BrowserSession.digest == digest(token)))
