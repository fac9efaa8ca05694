"""`plumbline submit`: a job from a YAML file."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from api.cli.connection import Url, connect
from api.cli.errors import CliError
from api.cli.watch import follow
from api.client import ApiError, Client

_ELSEWHERE = re.compile(r"file-[0-9a-f]{21}$|hf:|\w+://")


class _Loader(yaml.SafeLoader):
    """Reads 1e-6 as a number, as YAML 1.2 does; PyYAML's YAML 1.1 makes it a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def submit(
    file: Annotated[Path, typer.Argument(help="The job, as YAML: the fields of POST /v1/jobs.", metavar="FILE.yaml")],
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show the progress, like `plumbline watch`.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Submitting again with the same key returns the same job, not another one.")
    ] = None,
    url: Url = None,
) -> None:
    """Submit a job. Where `data.train` or `data.validation` is the path of a file, relative to FILE.yaml, the file is
    uploaded first, unless its bytes are there already, and its ID takes the path's place."""
    console = Console(highlight=False, soft_wrap=True)
    spec = read_spec(file)
    with connect(url) as client:
        uploaded = place_files(client, spec, file)
        try:
            job = client.jobs.create(spec, idempotency_key=idempotency_key)
        except ApiError as error:
            if error.status < 500:  # for nothing: there is no job that needs them
                for file_id in uploaded:
                    client.files.delete(file_id)
            raise
        console.print(job.id)
        if watch:
            raise typer.Exit(follow(client, job.id, console))
    console.print(f"plumbline watch {job.id}   shows its progress", style="dim")


def read_spec(path: Path) -> dict[str, Any]:
    """Raises CliError if the file cannot be read or is no YAML mapping. The API checks the fields."""
    try:
        spec = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{path} is not YAML: {error}") from error
    if not isinstance(spec, dict):
        raise CliError(f"{path} must hold a mapping with the fields of a job, such as `model` and `data`.")
    return spec


def local_files(spec: dict[str, Any], spec_path: Path) -> dict[str, Path]:
    """The files here that `data` names by their paths, by field. Left out are IDs, URLs and datasets on the hub, and
    absolute paths that are not here: they may be on the server.

    Raises CliError if there is no such file.
    """
    data = spec.get("data")
    found: dict[str, Path] = {}
    for field in ("train", "validation"):
        named = data.get(field) if isinstance(data, dict) else None
        if not isinstance(named, str) or _ELSEWHERE.match(named):
            continue
        path = spec_path.parent / Path(named).expanduser()
        if path.is_file():
            found[field] = path
        elif not named.startswith("/"):
            raise CliError(f"data.{field}: there is no file {path}, and '{named}' is not the ID of an uploaded one.")
    return found


def place_files(client: Client, spec: dict[str, Any], spec_path: Path) -> list[str]:
    """Put the IDs of uploads in the place of local paths in `spec`; returns the IDs of those that were uploaded now.

    Raises as `local_files` does, before anything is uploaded.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)  # scripts read the ID of what is made from stdout
    ids: dict[str, str] = {}
    uploaded: list[str] = []
    for field, path in local_files(spec, spec_path).items():
        ids[field], new = _place(client, path, console)
        uploaded += [new] if new is not None else []
    if ids:
        spec["data"] = spec["data"] | ids
    return uploaded


def _place(client: Client, path: Path, console: Console) -> tuple[str, str | None]:
    """The ID of the file among those of the project, and again if it was uploaded now.

    The same bytes get the same ID: so a job that is submitted again under one key is the same job, byte for byte.
    """
    with path.open("rb") as file, console.status(f"looking for {path.name} among your files"):
        found = client.files.list(sha256=hashlib.file_digest(file, "sha256").hexdigest(), order="asc", limit=1).data
    if found:
        console.print(f"{path.name} is there already as {found[0].id}", style="dim")
        return found[0].id, None
    with console.status(f"uploading {path.name}"):
        uploaded = client.files.upload(path)
    console.print(f"uploaded {path.name} as {uploaded.id}", style="dim")
    return uploaded.id, uploaded.id
