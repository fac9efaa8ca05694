"""The control plane's database, opened by a command."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from api.cli import home
from api.cli.errors import CliError
from service import audit
from service.db.migrate import schema_of, upgrade
from service.db.session import Database
from service.settings import Settings

Result = TypeVar("Result")


def upgrade_database(settings: Settings) -> None:
    """Raises CliError if the database cannot be reached or changed."""
    try:
        upgrade(settings.sqlalchemy_url)
    except (SQLAlchemyError, OSError) as error:
        raise CliError(f"The database cannot be upgraded: {error}") from error


def in_database(work: Callable[[AsyncSession], Coroutine[Any, Any, Result]], action: str) -> Result:
    """Run `work` in one transaction. Raises CliError if the database does not answer or has an older schema.

    action: what the audit log calls it, should it change something.
    """
    with audit.begin(audit.Act(action)):
        return asyncio.run(_run(work))


def with_database(settings: Settings, work: Callable[[Database], Coroutine[Any, Any, Result]]) -> Result:
    """Run `work`, which opens transactions itself. Raises CliError if the database does not answer."""

    async def run() -> Result:
        database = Database(settings.sqlalchemy_url)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except SQLAlchemyError as error:
        raise CliError(f"The database does not answer: {error}") from error
    except OSError as error:
        raise CliError(str(error)) from error


async def _run(work: Callable[[AsyncSession], Coroutine[Any, Any, Result]]) -> Result:
    database = Database(home.settings_for_server().sqlalchemy_url)
    try:
        if not (schema := await schema_of(database)).serves:
            raise CliError(f"The database has {schema.value}. {schema.remedy}")
        async with database.transaction() as session:
            return await work(session)
    except (SQLAlchemyError, OSError) as error:
        raise CliError(f"The database does not answer: {error}") from error
    finally:
        await database.close()
