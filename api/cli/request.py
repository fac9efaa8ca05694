"""`plumbline request`: any route of the API, with the key and the address that the other commands use."""

import json
import sys
from typing import Annotated, Any

import typer

from api.cli.connection import Url, connect
from api.cli.errors import CliError
from api.client.call import Call


def request(
    method: Annotated[str, typer.Argument(help="GET, POST, PATCH or DELETE.")],
    path: Annotated[str, typer.Argument(help="Such as /v1/webhooks; the dashboard's API page lists them.")],
    body: Annotated[str | None, typer.Argument(help="JSON; `-` reads it from standard input.")] = None,
    url: Url = None,
) -> None:
    """Send a request and print the answer as JSON."""
    text = sys.stdin.read() if body == "-" else body
    try:
        sent: Any = json.loads(text) if text is not None else None
    except ValueError as error:
        raise CliError(f"The body is not JSON: {error}") from error
    with connect(url) as client:
        answer = client.send(Call(method.upper(), path, bytes, json=sent))
    try:
        typer.echo(json.dumps(json.loads(answer), indent=2, ensure_ascii=False))
    except ValueError:
        sys.stdout.buffer.write(answer)
