"""`plumbline doctor`: whether this installation can work, and what to mend."""

import asyncio
import json
from typing import Annotated

import typer
from rich.console import Console

from api.cli import home

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    only: Annotated[list[str] | None, typer.Option(help="A check to make; can be given again. By default all.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for what fails to become well.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Check database, schema, storage, object stores, Ray, its pools, Serve, and a driver on the cluster.

    Exit status 1 if one fails. Run it where API and controller run, with their settings.
    """
    from service.doctor.examination import CHECKS, examine
    from service.doctor.findings import Verdict

    if unknown := set(only or ()) - set(CHECKS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: the checks are {', '.join(CHECKS)}.")
    settings = home.settings_for_server()
    console = Console(highlight=False, soft_wrap=True)
    failed = False

    async def run() -> None:
        nonlocal failed
        async for name, found in examine(settings, only or tuple(CHECKS), wait):
            failed |= found.verdict is Verdict.FAILED
            if as_json:
                typer.echo(
                    json.dumps({"check": name, "verdict": found.verdict, "message": found.message, "fix": found.fix})
                )
                continue
            console.print(f"[{_STYLES[found.verdict]}]{found.verdict:8}[/] {name:11}", end="")
            console.print(found.message, markup=False)
            if found.fix:
                console.print(f"{'':20} → {found.fix}", markup=False)

    asyncio.run(run())
    if failed:
        raise typer.Exit(1)
