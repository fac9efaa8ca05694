"""`plumbline compare`: one prompt, the answers of base and aligned model side by side as they come."""

from itertools import chain
from typing import Annotated

import typer
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from api.cli.connection import Url, connect
from api.cli.errors import CliError
from api.cli.watch import JobId
from api.client.serving import Broken, Delta

SIDES = ("base", "aligned")


def compare(
    job: JobId,
    prompt: Annotated[str, typer.Argument(help="What both models are asked.")],
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 takes the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same for both sides.")] = 0,
    url: Url = None,
) -> None:
    """Ask the model as it was and the aligned one the same, and show both answers side by side."""
    console = Console(highlight=False)
    texts = dict.fromkeys(SIDES, "")
    problems: list[str] = []
    with connect(url) as client:
        parts = client.comparisons.stream(job, prompt, max_tokens=max_tokens, temperature=temperature, seed=seed)
        first = next(parts)  # before anything is drawn: the request itself may be refused
        with Live(_panels(texts, console), console=console, refresh_per_second=8) as live:
            for part in chain([first], parts):
                if isinstance(part, Delta):
                    texts[part.side] += part.text
                elif isinstance(part, Broken):
                    problems.append(f"{part.side}: {part.problem.get('detail') or part.problem.get('title')}")
                live.update(_panels(texts, console))
    if problems:
        raise CliError("\n".join(problems))


def _panels(texts: dict[str, str], console: Console) -> Columns:
    width = max(20, console.width // len(SIDES) - 1)
    return Columns([Panel(Text(texts[side]), title=side, width=width) for side in SIDES], padding=(0, 0))
