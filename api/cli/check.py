"""`plumbline check`: what a file of rows is like, before any job. Needs no running Plumbline and no GPU."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from api.cli.data_report import show
from api.cli.errors import CliError
from service.spec import AlignmentJob, DataSpec, RowFormat, ScoreUse, TrainOn, Truncation
from service.spec.data_report import DataReport
from service.validation import explain

_OTHER_SHAPE = frozenset({"shape_mismatch", "label_false"})
_LOSSES = "name another with --loss: kto for labelled answers, plackett_luce for rankings, sft for answers alone"
_DEFAULTS = DataSpec(train="file-" + "0" * 21)


def check(
    file: Annotated[Path, typer.Argument(help="Rows as a job would read them.", exists=True, dir_okay=False)],
    model: Annotated[
        Path | None,
        typer.Option(help="A model's directory: count its tokens, find rows that its template refuses.", exists=True),
    ] = None,
    loss: Annotated[str, typer.Option(help="Read the rows as this loss needs them.")] = "sigmoid",
    format_: Annotated[
        RowFormat, typer.Option("--format", help="data.format of the job: how rows are read.")
    ] = _DEFAULTS.format,
    scores: Annotated[ScoreUse, typer.Option(help="data.scores of the job.")] = _DEFAULTS.scores,
    max_length: Annotated[int, typer.Option(help="data.max_length of the job.")] = _DEFAULTS.max_length,
    max_prompt_length: Annotated[int | None, typer.Option(help="data.max_prompt_length of the job.")] = None,
    max_completion_length: Annotated[int | None, typer.Option(help="data.max_completion_length of the job.")] = None,
    truncation: Annotated[Truncation, typer.Option(help="data.truncation of the job.")] = _DEFAULTS.truncation,
    train_on: Annotated[TrainOn, typer.Option(help="data.train_on of the job.")] = _DEFAULTS.train_on,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Report on a file of rows: what is unusable and why, lengths, duplicates, contradictions, length bias.

    Without --model lengths are characters, and what only a tokenizer can tell is left out. Exit status 1 if some row
    cannot be used.
    """
    job = _job(
        loss,
        {
            "train": _DEFAULTS.train,
            "format": format_,
            "scores": scores,
            "max_length": max_length,
            "max_prompt_length": max_prompt_length,
            "max_completion_length": max_completion_length,
            "truncation": truncation,
            "train_on": train_on,
        },
    )
    errors = Console(stderr=True, highlight=False)
    report = _run(file, model, job, errors)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        show(report, Console(highlight=False))
    if any(reason.code in _OTHER_SHAPE for reason in report.reasons):
        errors.print(f"rows were read as the loss `{loss}` needs them; {_LOSSES}", markup=False)
    if report.bad or report.cut_off or not report.used:
        raise typer.Exit(1)


def _job(loss: str, data: dict[str, Any]) -> AlignmentJob:
    spec = {"model": "/", "data": data, "losses": [{"type": loss}]}
    try:
        return AlignmentJob.model_validate(spec)
    except ValidationError as error:
        raise CliError(explain(error.errors(), spec).detail) from error


def _run(file: Path, model: Path | None, job: AlignmentJob, console: Console) -> DataReport:
    """Let the workers' code look, in a process of its own: here there is neither a tokenizer nor numpy."""
    command = [sys.executable, "-m", "workers.data.check", str(file), "--job", job.model_dump_json()]
    if model is not None:
        command += ["--tokenizer", str(model)]
    said: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+") as errors,
        console.status(f"reading {file.name}") as status,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,  # noqa: S603 - our own
    ):
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            if "rows" in said:
                status.update(f"{said['rows']} rows of {file.name}")
        process.wait()
        errors.seek(0)
        last = errors.read().strip().rpartition("\n")[2]
    if "error" in said:
        raise CliError(f"{said['error']['message']} [{said['error']['code']}]")
    if "report" not in said:
        raise CliError(f"The check did not end: {last or f'exit status {process.returncode}'}. {_hint(last)}")
    return DataReport.model_validate(said["report"])


def _hint(last: str) -> str:
    if last.startswith("ModuleNotFoundError"):
        return "It needs the workers' packages: install plumbline[cpu] or plumbline[gpu]."
    return "Run `python -m workers.data.check --help` to see the command by itself."
