"""`plumbline keys ...`, `db ...` and `admin ...`: they open the database itself, so they run where it is.

Its libraries are imported in the functions: the other commands should not wait for them.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from api.cli import home
from api.cli.errors import CliError
from service.clock import utc_now
from service.keys.roles import Role
from service.spec import Storage

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

admin = typer.Typer(no_args_is_help=True, help="Backup and restore of this Plumbline.")
keys = typer.Typer(no_args_is_help=True, help="API keys: who may use this Plumbline.")
db = typer.Typer(no_args_is_help=True, help="The database.")


@keys.command("create")
def create(
    project: Annotated[str, typer.Option(help="Keys of one project see the same jobs and files.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    user: Annotated[
        str | None, typer.Option(help="Whose key it is: a name or an e-mail address. Made a member if need be.")
    ] = None,
    role: Annotated[Role, typer.Option(help="What it may do: each may do more than the one before.")] = Role.MEMBER,
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="After that it is refused.")] = None,
) -> None:
    """Make a key and print it. It is shown this once; only its digest is kept."""
    from api.cli.database import in_database
    from service.keys.service import create_key
    from service.projects import service as projects

    expires_at = utc_now() + timedelta(days=expires_in_days) if expires_in_days is not None else None

    async def work(session: "AsyncSession") -> str:
        await projects.ensure(session, project)
        user_id = None
        if user is not None:
            owner = await projects.find_or_make_user(session, user)
            await projects.raise_member(session, project, owner, min(role, Role.ADMIN, key=lambda one: one.rank))
            user_id = owner.id
        return (
            await create_key(session, project_id=project, name=name, role=role, user_id=user_id, expires_at=expires_at)
        )[1]

    typer.echo(in_database(work, "plumbline keys create"))


@keys.command("list")
def list_() -> None:
    """List the keys, revoked ones too."""
    from api.cli.database import in_database
    from service.keys.service import list_keys
    from service.projects import service as projects

    async def work(session: "AsyncSession") -> list[tuple[str, ...]]:
        names = await projects.all_user_names(session)
        return [
            (
                key.id,
                f"{key.prefix}…" if key.prefix else "",
                key.project_id,
                names.get(key.user_id or "", ""),
                key.role,
                key.name,
                *map(_minute, (key.created_at, key.last_used_at, key.expires_at, key.revoked_at)),
            )
            for key in await list_keys(session)
        ]

    columns = ("prefix", "project", "user", "role", "name", "created", "last used", "expires", "revoked")
    table = Table(Column("key", no_wrap=True, min_width=25), *columns, box=None)
    for row in in_database(work, "plumbline keys list"):
        table.add_row(*row)
    Console(highlight=False).print(table)


@keys.command("revoke")
def revoke(key: Annotated[str, typer.Argument(metavar="KEY-ID", help="As `plumbline keys list` shows it.")]) -> None:
    """Refuse a key from now on."""
    from api.cli.database import in_database
    from service.keys.service import revoke_key

    async def work(session: "AsyncSession") -> str:
        return (await revoke_key(session, key)).id

    typer.echo(f"revoked {in_database(work, 'plumbline keys revoke')}")


@db.command("upgrade")
def upgrade_() -> None:
    """Bring the database to the newest schema. Safe to repeat."""
    from api.cli.database import upgrade_database

    upgrade_database(home.settings_for_server())
    typer.echo("The database is up to date.")


@admin.command("backup")
def backup(
    directory: Annotated[Path, typer.Argument(help="A new directory; whoever can read it can read all jobs.")],
) -> None:
    """Write the database, and a list of what lies in the storage with digests. Jobs may run meanwhile."""
    from api.cli.database import with_database
    from service.backup.backup import back_up

    settings = home.settings_for_server()
    made = with_database(settings, lambda database: back_up(database, Storage(settings.storage_root), directory))
    typer.echo(f"{directory}: {made.rows} rows of {len(made.tables)} tables, a list of {made.artifacts} artifacts")


@admin.command("restore")
def restore_(
    directory: Annotated[Path, typer.Argument(help="What `plumbline admin backup` wrote.")],
) -> None:
    """Read a backup into an empty database, and compare the storage with its list. Exit status 1 if files are missing.

    Stop API and controller first.
    """
    from api.cli.database import with_database
    from service.backup.restore import missing, restore

    settings = home.settings_for_server()
    read = with_database(settings, lambda database: restore(database, directory))
    typer.echo(f"{read.rows} rows of {len(read.tables)} tables, as they were at {read.made_at}")
    troubles = missing(directory, Storage(settings.storage_root))
    for trouble in troubles:
        typer.echo(trouble, err=True)
    if troubles:
        raise CliError(
            f"{len(troubles)} of {read.artifacts} artifacts are not in {settings.storage_root} as they were: bring "
            "them back from a snapshot of the storage."
        )
    typer.echo(f"All {read.artifacts} artifacts are there.")


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at is not None else ""
