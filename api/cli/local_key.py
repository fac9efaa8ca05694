"""The local user's API key, kept in the home."""

import asyncio
from contextlib import suppress

from sqlalchemy.ext.asyncio import AsyncSession

from api.cli.home import key_file, made_once
from service.db.session import Database
from service.errors import Unauthorized
from service.keys.roles import Role
from service.keys.service import create_key, verify_key
from service.projects import service as projects
from service.settings import Settings

PROJECT = USER = "local"


def local_key(settings: Settings) -> str:
    """The local user's API key: the one in the home, or a new one if the database does not know it (any more)."""
    path = key_file(settings.home)
    known = path.read_text().strip() if path.exists() else None
    key = asyncio.run(_valid_key(settings, known))
    if key != known:
        path.unlink(missing_ok=True)
        made_once(path, key)
    return key


async def _valid_key(settings: Settings, known: str | None) -> str:
    database = Database(settings.sqlalchemy_url)
    try:
        if known is not None:
            with suppress(Unauthorized):
                await verify_key(database, known)
                return known
        async with database.transaction() as session:
            return await _new_key(session)
    finally:
        await database.close()


async def _new_key(session: AsyncSession) -> str:
    """Whoever runs Plumbline on this machine decides over all of it."""
    await projects.ensure(session, PROJECT)
    user = await projects.find_or_make_user(session, USER)
    await projects.set_member(session, PROJECT, user, Role.ADMIN)
    _, key = await create_key(session, project_id=PROJECT, name="plumbline up", role=Role.OPERATOR, user_id=user.id)
    return key
