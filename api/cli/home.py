"""The local home of `plumbline up`: one directory with the secret, the user's API key, the database and the storage.

Light to import: every command looks for the key here.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from api.cli.errors import CliError
from service.settings import Settings


def key_file(home: Path) -> Path:
    return home / "api-key"


def url_file(home: Path) -> Path:
    """Holds the address of the `plumbline up` that runs on this home, for the other commands."""
    return home / "url"


def prepare(settings: Settings) -> Settings:
    """Make the home, readable by its owner only, and the secret in it. Returns the settings with absolute paths and
    the secret filled in."""
    home = settings.home.expanduser().resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
    except OSError as error:
        raise CliError(
            f"The home {home} cannot be used: {error.strerror}. Set PLUMBLINE_HOME to another one."
        ) from error
    (home / "logs").mkdir(exist_ok=True)
    secret = settings.secret or SecretStr(made_once(home / "secret", secrets.token_hex(32)))
    storage = settings.storage_root.resolve() if settings.storage else home / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    return settings.model_copy(update={"home": home, "secret": secret, "storage": storage})


def settings_for_server() -> Settings:
    """The settings of API, controller and database commands: in development with what the home holds, in production
    as they are, since there the environment says everything and the file system may be read-only."""
    settings = Settings()
    return settings if settings.environment == "production" else prepare(settings)


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Hold the home for this process. Raises CliError if another one holds it; the system lets go when it ends."""
    with (home / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CliError(
                f"Plumbline is already running on {home} (process {lock.read().strip() or 'unknown'}). Use that one, "
                "stop it, or set PLUMBLINE_HOME to another directory."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def made_once(path: Path, content: str) -> str:
    """The file's content, which is `content` if there was none; readable by its owner only from the start."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    return content
