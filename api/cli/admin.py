"""`plumbline keys ...` and `plumbline db ...`: they open the database itself, so they run where it is.

Its libraries are imported in the functions: the other commands should not wait for them.
"""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from api.cli import home

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

keys = typer.Typer(no_args_is_help=True, help="API keys: who may use this Plumbline.")
db = typer.Typer(no_args_is_help=True, help="The database.")


@keys.command("create")
def create(
    project: Annotated[str, typer.Option(help="Keys of one project see the same jobs and files.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
) -> None:
    """Make a key and print it. It is shown this once; only its digest is kept."""
    from api.cli.database import in_database
    from service.keys.service import create_key

    async def work(session: "AsyncSession") -> str:
        return (await create_key(session, project_id=project, name=name))[1]

    typer.echo(in_database(work))


@keys.command("list")
def list_() -> None:
    """List the keys, revoked ones too."""
    from api.cli.database import in_database
    from service.keys.service import list_keys

    rows = in_database(list_keys)
    table = Table(Column("key", no_wrap=True, min_width=25), "project", "name", "created", "revoked", box=None)
    for key in rows:
        revoked = f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
        table.add_row(key.id, key.project_id, key.name, f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
    Console(highlight=False).print(table)


@keys.command("revoke")
def revoke(key: Annotated[str, typer.Argument(metavar="KEY-ID", help="As `plumbline keys list` shows it.")]) -> None:
    """Refuse a key from now on."""
    from api.cli.database import in_database
    from service.keys.service import revoke_key

    async def work(session: "AsyncSession") -> str:
        return (await revoke_key(session, key)).id

    typer.echo(f"revoked {in_database(work)}")


@db.command("upgrade")
def upgrade_() -> None:
    """Bring the database to the newest schema. Safe to repeat."""
    from api.cli.database import upgrade_database

    upgrade_database(home.settings_for_server())
    typer.echo("The database is up to date.")
