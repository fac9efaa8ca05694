"""`plumbline up` and `demo`, and API and controller apart.

The server is imported in the functions: the other commands should not wait for it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from api.cli import home
from service.settings import Settings

if TYPE_CHECKING:
    from api.cli.stack import Stack


def up() -> None:
    """Start Plumbline on this machine: Ray, API, controller and dashboard. Ctrl-C stops them all."""
    from api.cli.stack import running_stack
    from service.telemetry import logs, traces

    console = Console(highlight=False)
    settings = home.prepare(Settings())
    log_file = settings.home / "logs" / "plumbline.log"
    logs.configure(settings, log_file)
    traces.configure("plumbline")
    status = console.status("starting")
    try:
        with status, running_stack(settings, say=status.update) as stack:
            status.stop()
            console.print(_welcome(stack, log_file), soft_wrap=True)
            stack.wait()
    except KeyboardInterrupt:
        console.print("Stopped. The data stays; `plumbline up` goes on with it.")


def demo() -> None:
    """Show the whole product on this machine: train, align, serve and compare a tiny model."""
    from api.cli.demo.run import run_demo
    from service.telemetry import logs

    settings = home.prepare(Settings())
    logs.configure(settings, settings.home / "logs" / "plumbline.log")
    run_demo(settings, Console(highlight=False))


def api() -> None:
    """Serve the API alone, as in production. Its settings are PLUMBLINE_... variables."""
    from api.cli.control_plane import run_api
    from service.telemetry import logs, traces

    settings = home.settings_for_server()
    logs.configure(settings)
    traces.configure("plumbline-api")
    run_api(settings)


def controller() -> None:
    """Run the controller alone, as in production. Its settings are PLUMBLINE_... variables."""
    from api.cli.control_plane import run_controller
    from service.telemetry import logs, traces

    settings = home.settings_for_server()
    logs.configure(settings)
    traces.configure("plumbline-controller")
    run_controller(settings)


def _welcome(stack: "Stack", log_file: Path) -> str:
    return f"""[bold]Plumbline is running.[/bold]

  dashboard   {stack.url}/#key={stack.key}
  API         {stack.url}/v1   (documentation: {stack.url}/docs)
  your key    {home.key_file(stack.settings.home)}
  data        {stack.settings.home}
  log         {log_file}

  submit      plumbline submit job.yaml --watch
  look        plumbline jobs

Ctrl-C stops it."""
