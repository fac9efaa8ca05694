"""`plumbline evaluate`: an evaluation from a YAML file, followed to its results."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from api.cli.connection import Url, connect
from api.cli.errors import CliError
from api.cli.submit import read_spec

if TYPE_CHECKING:
    from api.evaluation_views import EvaluationWithProgress
    from service.evaluations.figures import IntervalFigure, LengthControlledFigure, Results

# Beyond it there is nothing that machines do
_DONE = frozenset({"voting", "completed", "failed", "cancelled"})


def evaluate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.yaml", help="The fields of POST /v1/evaluations; see docs/evaluation.md.")
    ],
    url: Url = None,
) -> None:
    """Have models judged: make the evaluation, follow it, and print what it shows. A file of prompts that it names by
    its path (`prompts.file`) is uploaded first."""
    asked = read_spec(file)
    console = Console(highlight=False, soft_wrap=True)
    with connect(url) as client:
        if prompts := _local_prompts(asked, file):
            with console.status(f"uploading {prompts.name}"):
                asked["prompts"] = asked["prompts"] | {"type": "file", "file_id": client.files.upload(prompts).id}
        made = client.evaluations.create(asked)
        console.print(made.id)
        done = _follow(client.evaluations.watch(made.id), console)
        results = client.evaluations.results(made.id)
    if done is not None and done.error is not None:
        raise CliError(f"{made.id} failed: {done.error.message}")
    _show(results, console)
    if done is not None and done.state == "voting":
        console.print(f"\nPeople vote now: open /side-by-side?evaluation={made.id} in the dashboard.")


def _local_prompts(asked: dict[str, Any], file: Path) -> Path | None:
    prompts = asked.get("prompts")
    if not isinstance(prompts, dict) or "file" not in prompts:
        return None
    path = Path(str(prompts.pop("file")))
    found = path if path.is_absolute() else file.parent / path
    if not found.is_file():
        raise CliError(f"There is no file {found}, which `prompts.file` names.")
    return found


def _follow(changes: Any, console: Console) -> "EvaluationWithProgress | None":
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    latest: EvaluationWithProgress | None = None
    said = None
    with Progress(*columns, console=console, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=0) for name in ("answers", "verdicts", "scores")}
        for latest in changes:
            for name, task in tasks.items():
                total = getattr(latest.progress, f"{name}_total")
                bars.update(task, completed=getattr(latest.progress, name), total=total, visible=total > 0)
            if latest.state in _DONE:
                break
            if latest.error is not None and latest.error.message != said:
                said = latest.error.message
                console.print(f"waits: {said}", markup=False)
    return latest


def _show(results: "Results", console: Console) -> None:
    for judge in results.judges:
        table = Table(
            *("model", "against", "won", "lost", "ties", "win rate", "length-controlled", "enough votes?"),
            title=judge.judge,
            title_justify="left",
            box=None,
        )
        for pair in judge.pairs:
            test = pair.sequential
            decision = f"{test.decision or 'not yet'}, p <= {test.p_bound:.2g}"
            table.add_row(
                *(pair.model, pair.baseline, str(pair.wins), str(pair.losses), str(pair.ties)),
                *(_interval(pair.win_rate), _interval(pair.length_controlled), decision),
            )
        console.print(table)
        if judge.position and judge.position.biased:
            console.print(f"{judge.judge} goes by the place: the first wins {_interval(judge.position.first_rate)}")
        if judge.failed:
            console.print(f"{judge.failed} verdicts of {judge.judge} could not be had, or were skipped")
    for reward in results.rewards:
        console.print(f"implicit-reward accuracy on held-out pairs: {_interval(reward.accuracy)}")
    for metric in results.metrics:
        if metric.mean is not None:
            console.print(f"{metric.metric} of {metric.model}: {metric.mean:.4g}")
    if results.agreement:
        console.print(f"agreement (Krippendorff's alpha): {results.agreement.estimate:.2f}")


def _interval(figure: "IntervalFigure | LengthControlledFigure | None") -> str:
    return f"{figure.estimate:.1%} ({figure.low:.1%} to {figure.high:.1%})" if figure else ""
