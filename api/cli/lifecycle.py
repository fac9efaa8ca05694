"""`plumbline pause`, `resume`, `retry`, `clone`, `delete`, `checkpoints`."""

from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from api.cli.connection import Url, connect
from api.cli.errors import CliError
from api.cli.watch import JobId, follow
from api.client.jobs import Patch

Budget = Annotated[
    float | None, typer.Option(min=0, help="The job's budget from now on, what it has used included.", metavar="HOURS")
]
Watch = Annotated[bool, typer.Option("--watch", help="Stay and show the progress, like `plumbline watch`.")]


def pause(job: JobId, url: Url = None) -> None:
    """Have a job save a checkpoint and leave the cluster; it keeps its place in the queue."""
    with connect(url) as client:
        typer.echo(f"{job} {client.jobs.pause(job).state}")


def resume(job: JobId, max_gpu_hours: Budget = None, watch: Watch = False, url: Url = None) -> None:
    """Let a paused job go on from its last checkpoint."""
    with connect(url) as client:
        typer.echo(f"{job} {client.jobs.resume(job, max_gpu_hours=max_gpu_hours).state}")
        if watch:
            raise typer.Exit(follow(client, job, Console(highlight=False, soft_wrap=True)))


def retry(job: JobId, max_gpu_hours: Budget = None, watch: Watch = False, url: Url = None) -> None:
    """Queue a failed or cancelled job again; it goes on from its last checkpoint, if it has one."""
    with connect(url) as client:
        typer.echo(f"{job} {client.jobs.retry(job, max_gpu_hours=max_gpu_hours).state}")
        if watch:
            raise typer.Exit(follow(client, job, Console(highlight=False, soft_wrap=True)))


def clone(
    job: JobId,
    changes: Annotated[
        str, typer.Argument(help="What is different, as YAML or JSON: lists are replaced whole, null is the default.")
    ] = "{}",
    url: Url = None,
) -> None:
    """Submit a job like another one, with changes: `plumbline clone JOB "training: {learning_rate: 1.0e-6}"`."""
    with connect(url) as client:
        typer.echo(client.jobs.clone(job, _patch(changes)).id)


def delete(
    job: JobId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete a job that has ended, with its model, its checkpoints and its log."""
    if not yes:
        typer.confirm(f"Delete {job} with its model, checkpoints and log?", abort=True)
    with connect(url) as client:
        typer.echo(f"deleted {client.jobs.delete(job).id}")


def checkpoints(job: JobId, url: Url = None) -> None:
    """List a job's checkpoints."""
    with connect(url) as client:
        found = client.jobs.checkpoints(job).data
    table = Table("step", "saved", "MiB", box=None)
    for one in found:
        table.add_row(str(one.step), f"{one.saved_at:%Y-%m-%d %H:%M:%S}", f"{one.bytes / 2**20:,.1f}")
    Console(highlight=False).print(table if found else "No checkpoints.")


def _patch(text: str) -> Patch:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CliError(f"The changes are neither YAML nor JSON: {error}") from error
    if not isinstance(found, dict):
        raise CliError("The changes must be a mapping, such as `training: {learning_rate: 1.0e-6}`.")
    return found
