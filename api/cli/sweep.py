"""`plumbline sweep`: many jobs from one YAML file, and how they compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from api.cli.connection import Url, connect
from api.cli.submit import place_files, read_spec

if TYPE_CHECKING:
    from api.routes.sweeps import SweepView

sweep = typer.Typer(no_args_is_help=True, help="Sweeps: jobs that are made together and compared.")

SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="The sweep's ID.")]


@sweep.command("submit")
def submit(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.yaml", help="`base`, a job, with `grid` or `changes`: the fields of /v1/sweeps."),
    ],
    url: Url = None,
) -> None:
    """Submit a sweep. Files that `data` of `base` names by their paths are uploaded first, unless they are there."""
    asked = read_spec(file)
    base = asked.pop("base", None) or {}
    console = Console(highlight=False, soft_wrap=True)
    with connect(url) as client:
        place_files(client, base, file)
        made = client.sweeps.create(base, **asked)
    console.print(made.id)
    console.print(_table(made))


@sweep.command("show")
def show(
    sweep: SweepId,
    metric: Annotated[str, typer.Option(help="What jobs are compared by.")] = "held_out.loss",
    highest: Annotated[bool, typer.Option("--highest", help="The highest value is the best, not the lowest.")] = False,
    url: Url = None,
) -> None:
    """Show a sweep's jobs side by side."""
    with connect(url) as client:
        found = client.sweeps.get(sweep, metric=metric, goal="max" if highest else "min")
    Console(highlight=False).print(_table(found))


@sweep.command("cancel")
def cancel(sweep: SweepId, url: Url = None) -> None:
    """Cancel every job of a sweep that has not ended."""
    with connect(url) as client:
        found = client.sweeps.cancel(sweep)
    typer.echo(", ".join(f"{count} {state}" for state, count in found.states.items()))


def _table(sweep: "SweepView") -> Table:
    table = Table("job", "changes", "state", sweep.metric, "", box=None)
    for one in sweep.jobs:
        changes = ", ".join(f"{path}={value}" for path, value in one.changes.items())
        value = f"{one.value:.5g}" if one.value is not None else ""
        table.add_row(one.job_id, changes, one.state, value, "best" if one.job_id == sweep.best else "")
    return table
