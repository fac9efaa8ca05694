"""Bring a database to the newest schema, from a checkout or a wheel. Safe to repeat, and to run twice at once.

A migration with `additive = True` leaves all that the code before it uses. From these the schema knows the oldest code
that it serves, and says so in its table `schema_compatibility`, where code that is older than the schema reads it: so
the pods of the version before go on while an upgrade puts the new ones beside them.
"""

import asyncio
from enum import Enum
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, select, text
from sqlalchemy.engine import make_url

from service.db.schema_tables import SchemaCompatibility
from service.db.session import Database
from service.errors import InvalidState

SCRIPTS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 7_586_246_254  # any number that nothing else in the database uses


class Schema(Enum):
    """What a database has, seen from this code."""

    OWN = "the schema of this version"
    NEWER = "a newer schema, which serves this version too"
    BEHIND = "an older schema than this version needs, or none"
    FOREIGN = "the schema of a newer version, which this one cannot work with"

    @property
    def serves(self) -> bool:
        """Whether this code may work with it."""
        return self in {Schema.OWN, Schema.NEWER}

    @property
    def remedy(self) -> str:
        """What to do about one that does not serve."""
        if self is Schema.BEHIND:
            return "Run `plumbline db upgrade`."
        return "Install the version that the database was upgraded to, or restore a backup of this one's."


def upgrade(url: str) -> None:
    """Apply what is missing, all of it or nothing. From a running event loop, call it in a thread.

    A newer schema that serves this code is left as it is. Raises InvalidState for one that does not.
    url: SQLAlchemy async URL. The directory of a SQLite file is made if need be.
    """
    asyncio.run(_upgrade(url))


async def schema_of(database: Database) -> Schema:
    async with database.reading() as session:
        connection = await session.connection()
        return await connection.run_sync(_schema)


async def is_current(database: Database) -> bool:
    """Whether the schema is the one this code was written for."""
    return await schema_of(database) is Schema.OWN


def revision(connection: Connection) -> str | None:
    """Of the database's schema; None for a database that has none."""
    return MigrationContext.configure(connection).get_current_revision()


def oldest_code(script: ScriptDirectory) -> str:
    """The newest revision of the oldest code that can work with the newest schema: the one before the last migrations
    that only add."""
    at = script.get_revision("head")
    while getattr(at.module, "additive", False) and isinstance(at.down_revision, str):
        at = script.get_revision(at.down_revision)
    return at.revision


def _schema(connection: Connection) -> Schema:
    found, (head, known) = revision(connection), _own_revisions(SCRIPTS)
    if found == head:
        return Schema.OWN
    if found is None or found in known:
        return Schema.BEHIND
    if inspect(connection).has_table(SchemaCompatibility.__tablename__):
        served = connection.scalar(select(SchemaCompatibility.oldest_code))
        if served in known:
            return Schema.NEWER
    return Schema.FOREIGN


@cache
def _own_revisions(scripts: Path) -> tuple[str | None, frozenset[str]]:
    """The newest one, and all that this code has."""
    script = ScriptDirectory.from_config(_config(scripts))
    return script.get_current_head(), frozenset(one.revision for one in script.walk_revisions())


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
    found = _schema(connection)
    if found is Schema.FOREIGN:
        raise InvalidState(f"The database has {found.value}. {found.remedy}")
    if found is not Schema.BEHIND:
        return
    config = _config(SCRIPTS)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.execute(delete(SchemaCompatibility))
    served = oldest_code(ScriptDirectory.from_config(config))
    connection.execute(insert(SchemaCompatibility).values(oldest_code=served))


def _config(scripts: Path = SCRIPTS) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    return config
