"""Bring a database to the newest schema, from a checkout or a wheel. Safe to repeat, and to run twice at once."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from service.db.session import Database

_ADVISORY_LOCK = 7_586_246_254  # any number that nothing else in the database uses


def upgrade(url: str) -> None:
    """Apply what is missing, all of it or nothing. From a running event loop, call it in a thread.

    url: SQLAlchemy async URL. The directory of a SQLite file is made if need be.
    """
    asyncio.run(_upgrade(url))


async def is_current(database: Database) -> bool:
    """Whether the schema is the one this code was written for."""
    async with database.reading() as session:
        connection = await session.connection()
        revision = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    return revision == ScriptDirectory.from_config(_config()).get_current_head()


async def _upgrade(url: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    database = Database(url)
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(_upgrade_in_transaction)
    finally:
        await database.close()


def _upgrade_in_transaction(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE already keeps a second upgrade waiting
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
