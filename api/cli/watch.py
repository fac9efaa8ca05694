"""`plumbline watch`: a job's stages as progress bars, its events above them."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn
from rich.text import Text

from api.cli.connection import Url, connect
from api.client import Client
from api.views import EventView, JobView, StageProgress
from service.jobs.states import DeploymentState, JobState
from service.spec import Stage

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's ID.")]


def watch(job: JobId, url: Url = None) -> None:
    """Show a job's progress until it has ended. Exit status 0 only if it has succeeded."""
    console = Console(highlight=False, soft_wrap=True)
    with connect(url) as client:
        raise typer.Exit(follow(client, job, console))


def follow(client: Client, job_id: str, console: Console) -> int:
    """Show the job's progress until it has ended and its deployment has settled. Returns the exit status."""
    with StageBars(console) as bars:
        for news in client.jobs.events(job_id):
            bars.show(news)
    return report_end(client.jobs.get(job_id), console)


class StageBars:
    """A progress bar for each stage that has begun."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[eta]}", style="cyan"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "StageBars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @property
    def console(self) -> Console:
        """Prints above the bars."""
        return self._bars.console

    @property
    def tasks(self) -> list[Task]:
        """What is shown, in order."""
        return self._bars.tasks

    def show(self, news: EventView | JobView) -> None:
        """An event as a line, a job as its progress. A retried job starts over, and so do its bars."""
        if isinstance(news, EventView):
            self.console.print(_line(news))
            return
        for name in [name for name in self._tasks if name not in news.progress]:
            self._bars.remove_task(self._tasks.pop(name))
        for stage in Stage:
            if stage in news.progress:
                self._show_stage(stage, news.progress[stage])

    def _show_stage(self, stage: Stage, at: StageProgress) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, unit="", eta="")
        eta = "" if at.done >= at.total or at.eta_s is None else f"{duration(at.eta_s)} left"
        self._bars.update(self._tasks[stage], completed=at.done, total=at.total, unit=at.unit, eta=eta)


def _line(event: EventView) -> Text:
    time = f"{event.created_at:%H:%M:%S}"
    return Text.assemble((time, "dim"), " ", (f"{event.type:<22}", "bold"), " ", event.message)


def report_end(job: JobView, console: Console) -> int:
    """Say how the job ended; returns the exit status."""
    if job.state is JobState.SUCCEEDED:
        console.print(Text(f"{job.id} succeeded", "green"))
        _report_deployment(job, console)
        return 0
    console.print(Text(f"{job.id} {job.state}", "yellow" if job.state is JobState.CANCELLED else "red"))
    if error := job.error:
        where = f" in stage {error.stage}" if error.stage else ""
        console.print(Text(f"{error.message} [{error.code}{where}]"))
        if error.log_tail:
            console.print(Text("last lines of the log:", "dim"))
            console.print(Text("\n".join(f"  {line}" for line in error.log_tail), "dim"))
    return 1


def duration(seconds: float) -> str:
    """5 s, 3:05 min, 2:03 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _report_deployment(job: JobView, console: Console) -> None:
    if job.deployment is None:
        return
    if job.deployment.state is DeploymentState.READY:
        console.print(f'plumbline compare {job.id} "a prompt"   asks base and aligned model', style="dim")
    elif job.deployment.state is DeploymentState.FAILED:
        console.print(Text(f"Its models could not be served: {job.deployment.message}", "yellow"))
