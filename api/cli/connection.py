"""Which API the commands talk to, and with which key."""

import os
from typing import Annotated

import typer

from api.cli import home
from api.cli.errors import CliError
from api.client import Client
from service.settings import Settings

Url = Annotated[
    str | None,
    typer.Option(envvar="PLUMBLINE_URL", help="Address of the API; by default that of the local `plumbline up`."),
]


def connect(url: str | None) -> Client:
    """A client for `url`, or for the Plumbline that runs on the local home. The key is PLUMBLINE_API_KEY, or the
    home's. Raises CliError if there is none."""
    settings = Settings()
    running = home.url_file(settings.home)
    if url is None:
        url = running.read_text().strip() if running.exists() else settings.public_url
    return Client(url, _key(settings))


def _key(settings: Settings) -> str:
    path = home.key_file(settings.home)
    key = os.environ.get("PLUMBLINE_API_KEY") or (path.read_text().strip() if path.exists() else None)
    if not key:
        raise CliError(
            f"No API key: there is none at {path}. Run `plumbline up` on this machine once, set PLUMBLINE_HOME to its "
            "home, or set PLUMBLINE_API_KEY."
        )
    return key
