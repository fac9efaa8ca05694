"""`plumbline projects ...`: they open the database itself, as `plumbline keys ...` do."""

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from service.errors import InvalidRequest

if TYPE_CHECKING:
    from pydantic import BaseModel
    from sqlalchemy.ext.asyncio import AsyncSession

    from service.projects.quota import Quota
    from service.retention.policy import Retention

ModelT = TypeVar("ModelT", bound="BaseModel")

projects = typer.Typer(no_args_is_help=True, help="Projects: who shares jobs and files, and how much they may use.")

ProjectId = Annotated[str, typer.Argument(metavar="PROJECT")]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=NUMBER",
        help="max_live_jobs, max_running_jobs, max_gpus, max_gpu_hours_month or max_storage_bytes; NAME=none lifts it.",
    ),
]


Keeps = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="NAME=DAYS",
        help="events_days, metrics_days, uploads_days or checkpoints_days; NAME=forever, or NAME=none for what is set "
        "for all.",
    ),
]


@projects.command("create")
def create(project: ProjectId, limit: Limits = None) -> None:
    """Make a project."""
    from api.cli.database import in_database
    from service.projects import service

    async def work(session: "AsyncSession") -> str:
        return (await service.create(session, service.checked_id(project), _quota(limit))).id

    typer.echo(f"made {in_database(work, 'plumbline projects create')}")


@projects.command("set")
def set_(project: ProjectId, limit: Limits = None, keep: Keeps = None) -> None:
    """Change limits of a project, and how long it keeps things; the others stay."""
    from api.cli.database import in_database
    from service.projects import service

    async def work(session: "AsyncSession") -> str:
        await service.set_quota(session, project, _quota(limit))
        changed = await service.set_retention(session, project, _retention(keep))
        return f"{changed.quota} {changed.retention or ''}".rstrip()

    typer.echo(in_database(work, "plumbline projects set"))


@projects.command("list")
def list_() -> None:
    """List the projects, their limits and what they use. Models count once the API has measured them."""
    from api.cli.database import in_database
    from service.projects import service, usage

    async def work(session: "AsyncSession") -> list[tuple[str, str, str]]:
        return [
            (
                project.id,
                ", ".join(f"{name}={value:g}" for name, value in project.quota.items()),
                ", ".join(f"{name}={value:g}" for name, value in await _used(session, project.id)),
            )
            for project in await service.all_projects(session)
        ]

    async def _used(session: "AsyncSession", project_id: str) -> list[tuple[str, float]]:
        return [(name, value) for name, value in await usage.usage(session, project_id) if value]

    table = Table("project", "limits", "used", box=None)
    for row in in_database(work, "plumbline projects list"):
        table.add_row(*row)
    Console(highlight=False).print(table)


def _quota(limits: list[str] | None) -> "Quota":
    from service.projects.quota import Quota

    return _told(Quota, "--limit", limits)


def _retention(keeps: list[str] | None) -> "Retention":
    from service.retention.policy import Retention

    return _told(Retention, "--keep", keeps)


def _told(kind: type[ModelT], option: str, given: list[str] | None) -> ModelT:
    """Raises InvalidRequest for what is none of its fields, or no value of one."""
    from pydantic import ValidationError

    told = dict(one.partition("=")[::2] for one in given or ())
    lifted = dict.fromkeys((name for name, value in told.items() if value == "none"), None)
    try:
        kind.model_validate(lifted)  # refuses names that there are not
        return kind.model_validate_strings({name: told[name] for name in told.keys() - lifted}).model_copy(
            update=lifted
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InvalidRequest(f"{option} {wrong['loc'][0]}: {wrong['msg']}") from error
