"""A file in a bucket: s3:// and gs://, through fsspec with the worker's own credentials and endpoint."""

from pathlib import Path

import fsspec

from service.spec.reports import Fault
from workers.errors import AttemptError


def download(url: str, target: Path) -> None:
    """Stream the object to `target`. Raises AttemptError `source_not_found` or `source_unreachable`."""
    scheme, _, path = url.partition("://")
    problems: tuple[type[Exception], ...] = (OSError, *(_s3_errors() if scheme == "s3" else _gs_errors()))
    try:
        # Not `fsspec.open`, which takes patterns and chains of URLs ("::") apart
        files = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
        if files.info(path)["type"] != "file":  # `isfile` takes any trouble for a no
            raise FileNotFoundError(url)
        files.get_file(path, str(target))
    except (FileNotFoundError, PermissionError) as error:
        raise AttemptError(
            "source_not_found",
            f"{url} is not there, or the cluster may not read it: check `data.train` and the workers' credentials.",
        ) from error
    except problems as error:
        raise AttemptError("source_unreachable", f"{url} could not be fetched: {error}.", Fault.SYSTEM) from error


def _s3_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError


def _gs_errors() -> tuple[type[Exception], ...]:
    from aiohttp import ClientError
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError

    return ClientError, HttpError, GoogleAuthError
