"""`plumbline request`: any route of the API, with the key and the address that the other commands use."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import httpx
import typer

from api.cli.connection import Url, connect
from api.cli.errors import CliError
from api.client.call import Call


def request(
    method: Annotated[str, typer.Argument(help="GET, POST, PATCH, PUT or DELETE.")],
    path: Annotated[str, typer.Argument(help="Such as /v1/webhooks; the dashboard's API page lists them.")],
    body: Annotated[str | None, typer.Argument(help="JSON; `-` reads it from standard input.")] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD=@PATH",
            help="Send this file as a form, as `--file file=@pairs.jsonl` to /v1/files; then without BODY.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answer to this file.")] = None,
    url: Url = None,
) -> None:
    """Send a request and print the answer: JSON indented, anything else as it comes."""
    if body is not None and file is not None:
        raise CliError("Send a BODY or a --file, not both.")
    text = sys.stdin.read() if body == "-" else body
    try:
        sent: Any = json.loads(text) if text is not None else None
    except ValueError as error:
        raise CliError(f"The body is not JSON: {error}") from error
    call = Call(method.upper(), path, bytes, json=sent, files=_form(file) if file is not None else {})
    with connect(url) as client, client.opened(call) as response:
        if output is not None:
            _write(response, output)
        elif response.headers.get("content-type", "").startswith("application/json"):
            typer.echo(json.dumps(json.loads(response.read()), indent=2, ensure_ascii=False))
        else:
            _copy(response, sys.stdout.buffer)


def _form(file: str) -> dict[str, Path]:
    field, is_named, path = file.partition("=@")
    if not (field and is_named and path):
        raise CliError(f"--file takes FIELD=@PATH, as in 'file=@pairs.jsonl', and not '{file}'.")
    if not Path(path).is_file():
        raise CliError(f"There is no file {path}.")
    return {field: Path(path)}


def _write(response: httpx.Response, target: Path) -> None:
    """Under its name when it is whole."""
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as out:
            _copy(response, out)
        part.replace(target)
    except OSError as error:
        raise CliError(f"{target}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _copy(response: httpx.Response, out: BinaryIO) -> None:
    for piece in response.iter_bytes():
        out.write(piece)
        out.flush()  # a stream of events is read as it comes
