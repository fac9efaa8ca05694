"""`plumbline keys ...` and `plumbline db ...`: they open the database itself, so they run where it is."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from api.cli import home
from api.cli.errors import CliError
from service.db.migrate import is_current, upgrade
from service.db.session import Database
from service.keys.service import create_key, list_keys, revoke_key
from service.settings import Settings

Result = TypeVar("Result")

keys = typer.Typer(no_args_is_help=True, help="API keys: who may use this Plumbline.")
db = typer.Typer(no_args_is_help=True, help="The database.")


@keys.command("create")
def create(
    owner: Annotated[str, typer.Option(help="Keys with the same owner see the same jobs and files.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
) -> None:
    """Make a key and print it. It is shown this once; only its digest is kept."""

    async def work(session: AsyncSession) -> str:
        return (await create_key(session, owner=owner, name=name))[1]

    typer.echo(_in_database(work))


@keys.command("list")
def list_() -> None:
    """List the keys, revoked ones too."""
    rows = _in_database(list_keys)
    table = Table("key", "owner", "name", "created", "revoked", box=None)
    for key in rows:
        revoked = f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
        table.add_row(key.id, key.owner, key.name, f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
    Console(highlight=False).print(table)


@keys.command("revoke")
def revoke(key: Annotated[str, typer.Argument(metavar="KEY-ID", help="As `plumbline keys list` shows it.")]) -> None:
    """Refuse a key from now on."""

    async def work(session: AsyncSession) -> str:
        return (await revoke_key(session, key)).id

    typer.echo(f"revoked {_in_database(work)}")


@db.command("upgrade")
def upgrade_() -> None:
    """Bring the database to the newest schema. Safe to repeat."""
    settings = home.prepare(Settings())
    try:
        upgrade(settings.sqlalchemy_url)
    except SQLAlchemyError as error:
        raise CliError(f"The database cannot be upgraded: {error}") from error
    typer.echo("The database is up to date.")


def _in_database(work: Callable[[AsyncSession], Coroutine[Any, Any, Result]]) -> Result:
    return asyncio.run(_run(work))


async def _run(work: Callable[[AsyncSession], Coroutine[Any, Any, Result]]) -> Result:
    database = Database(home.prepare(Settings()).sqlalchemy_url)
    try:
        if not await is_current(database):
            raise CliError("The database has an older schema, or none: run `plumbline db upgrade` first.")
        async with database.transaction() as session:
            return await work(session)
    except SQLAlchemyError as error:
        raise CliError(f"The database does not answer: {error}") from error
    finally:
        await database.close()
