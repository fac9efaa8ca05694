"""`plumbline jobs` and `plumbline cancel`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from api.cli.connection import Url, connect
from api.cli.watch import JobId, follow
from service.jobs.states import JobState


def jobs(
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most this many, the newest first.")] = 20,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    url: Url = None,
) -> None:
    """List jobs."""
    with connect(url) as client:
        page = client.jobs.list(limit=limit, state=state)
    table = Table(
        Column("job", no_wrap=True, min_width=25),
        "name",
        "state",
        "stage",
        Column("created", no_wrap=True),
        "serving",
        box=None,
    )
    for job in page.data:
        table.add_row(
            job.id,
            job.name or "",
            job.state,
            job.stage or "",
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            job.deployment.state if job.deployment else "",
        )
    Console(highlight=False).print(table if page.data else "No jobs.")


def cancel(
    job: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until nothing of it is left on the cluster.")] = False,
    url: Url = None,
) -> None:
    """Cancel a job."""
    console = Console(highlight=False, soft_wrap=True)
    with connect(url) as client:
        state = client.jobs.cancel(job).state
        console.print(f"{job} {state}")
        if watch and state == JobState.CANCELLING:
            follow(client, job, console)
