"""`plumbline demo`: two jobs from POST to answers side by side, on a cluster of three nodes on this machine.

Job 1 trains a tiny model from scratch, job 2 aligns it, vLLM serves both, and the held-out questions are put to both.
Everything goes through the HTTP API, as it would for any client.
"""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import track
from rich.rule import Rule

from api.cli.demo.data import Row, answer_rows, preference_rows, texts, write_rows
from api.cli.demo.facts import Fact, held_out_questions
from api.cli.demo.jobs import align_job, learn_job
from api.cli.demo.model import write_model
from api.cli.demo.report import Answered, answered, render, shares
from api.cli.errors import CliError
from api.cli.stack import TWO_POOLS, Stack, running_stack
from api.cli.watch import StageBars, duration, report_end
from api.client import Client
from api.views import EventView
from service.jobs.states import DeploymentState, JobState
from service.settings import Settings

_MODEL = "demo-tiny"
_MAX_TOKENS = 48
_ASK_AT_ONCE = 4
_SERVE_PATIENCE_S = 300
_MIN_SHIFT = 0.5  # of the share of preferred answers; less, and the product has not done what it is for
_ENDED = frozenset({"job.succeeded", "job.failed", "job.cancelled"})


def run_demo(settings: Settings, console: Console) -> None:
    """Run the demo on the home of `settings` and print what happens.

    Raises CliError when a part fails to start or to serve, or when the shift in style is small; typer.Exit(1) when a
    job failed, after printing its error.
    """
    started = time.monotonic()
    with console.status("starting") as status, running_stack(settings, TWO_POOLS, status.update) as stack:
        status.stop()
        console.print(f"Plumbline is running: {stack.url}/#key={stack.key}", soft_wrap=True)
        with Client(stack.url, stack.key) as client:
            answers = _show(client, stack, console)
        console.print(render(answers))
        _require_shift(answers)
        took = duration(time.monotonic() - started)
        console.print(f"\nDone in {took}. [bold]make up[/] (or plumbline up) opens the dashboard on the same data.")
        status.start()


def _show(client: Client, stack: Stack, console: Console) -> list[Answered]:
    storage = stack.settings.storage_root
    first, second = answer_rows(), preference_rows()
    model = storage / "models" / _MODEL
    write_model(model, texts(first))

    console.print(Rule("1  a model that answers, from random weights (sft)"))
    base = _run(client, learn_job(str(model), _upload(client, first, "demo-answers.jsonl.gz")), console)
    console.print(Rule("2  its manners (DPO): courteous and brief over curt"))
    aligned = _run(client, align_job(base, _upload(client, second, "demo-preferences.jsonl.gz")), console)
    console.print(Rule("3  both on vLLM, asked what job 2 never saw"))
    _wait_until_served(client, aligned, stack, console)
    return _ask(client, aligned, console)


def _upload(client: Client, rows: list[Row], name: str) -> str:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        write_rows(path, rows)
        return client.files.upload(path).id


def _run(client: Client, spec: dict[str, Any], console: Console) -> str:
    """Submit the job and show it to its end; returns its ID."""
    job_id = client.jobs.create(spec).id
    console.print(f"{job_id}  {spec['name']}")
    with StageBars(console) as bars:
        for news in client.jobs.events(job_id):
            bars.show(news)
            if isinstance(news, EventView) and news.type in _ENDED:
                break
    job = client.jobs.get(job_id)
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(report_end(job, console))
    return job_id


def _wait_until_served(client: Client, job_id: str, stack: Stack, console: Console) -> None:
    started = time.monotonic()
    with console.status("") as status:
        while (deployment := client.deployments.get(job_id)).state is not DeploymentState.READY:
            stack.control_plane.check()
            stack.ray.check()
            waited = time.monotonic() - started
            if deployment.state is DeploymentState.FAILED or waited > _SERVE_PATIENCE_S:
                raise CliError(
                    f"After {duration(waited)} the models are {deployment.state}: {deployment.message or '-'}. "
                    f"The logs are in {stack.settings.home}/logs."
                )
            status.update(f"two vLLM engines are starting: {duration(waited)}")
            time.sleep(1)
    console.print(f"Both models answer after {duration(time.monotonic() - started)}.")


def _ask(client: Client, job_id: str, console: Console) -> list[Answered]:
    questions = held_out_questions()

    def ask(asked: tuple[Fact, str]) -> Answered:
        fact, question = asked
        comparison = client.comparisons.create(job_id, question, max_tokens=_MAX_TOKENS)
        return answered(fact, question, comparison)

    with ThreadPoolExecutor(_ASK_AT_ONCE) as pool:
        return list(track(pool.map(ask, questions), "asking both", total=len(questions), console=console))


def _require_shift(answers: list[Answered]) -> None:
    before = shares([answer.base_verdict for answer in answers]).preferred
    after = shares([answer.aligned_verdict for answer in answers]).preferred
    if after - before < _MIN_SHIFT:
        raise CliError(f"The share of preferred answers went from {before:.0%} to {after:.0%} only.")
