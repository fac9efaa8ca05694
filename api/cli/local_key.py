"""The local user's API key, kept in the home."""

import asyncio

from api.cli.home import key_file, made_once
from service.db.session import Database
from service.errors import Unauthorized
from service.keys.service import create_key, verify_key
from service.settings import Settings

PROJECT = "local"


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
        async with database.transaction() as session:
            if known is not None:
                try:
                    await verify_key(session, known)
                except Unauthorized:
                    known = None
            return known or (await create_key(session, project_id=PROJECT, name="plumbline up"))[1]
    finally:
        await database.close()
