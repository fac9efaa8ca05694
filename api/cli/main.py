"""`plumbline`: the commands, and the one place where their failures become a line of text."""

from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from typer.core import TyperGroup

from api.cli import admin
from api.cli.check import check
from api.cli.compare import compare
from api.cli.doctor import doctor
from api.cli.errors import CliError
from api.cli.evaluate import evaluate
from api.cli.jobs import cancel, jobs
from api.cli.lifecycle import checkpoints, clone, delete, pause, resume, retry
from api.cli.losses import losses
from api.cli.projects import projects
from api.cli.request import request
from api.cli.submit import submit
from api.cli.sweep import sweep
from api.cli.up import api, controller, demo, up
from api.cli.watch import watch
from api.client import PlumblineError
from service.errors import ServiceError


class Commands(TyperGroup):
    """Turns what a user can do something about into a message and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CliError, PlumblineError) as error:
            message = str(error)
        except ServiceError as error:
            message = error.detail
        except ValidationError as error:
            if error.title != "Settings":
                raise
            message = "\n".join(_setting(problem) for problem in error.errors())
        Console(stderr=True, highlight=False, soft_wrap=True).print(message, style="red", markup=False)
        raise typer.Exit(1)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Preference alignment as a service.",
)
for command in (
    *(up, demo, check, submit, watch, compare, evaluate, jobs, cancel, pause, resume, retry, clone, delete),
    *(checkpoints, losses, request, api, controller, doctor),
):
    app.command()(command)
app.add_typer(sweep, name="sweep")
app.add_typer(admin.keys, name="keys")
app.add_typer(projects, name="projects")
app.add_typer(admin.db, name="db")
app.add_typer(admin.admin, name="admin")


def _setting(problem: Any) -> str:
    name = "_".join(str(part) for part in problem["loc"])
    return f"PLUMBLINE_{name.upper()}: {problem['msg']}" if name else problem["msg"].removeprefix("Value error, ")
