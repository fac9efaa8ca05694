"""The databases that tests run on: a SQLite file, and a PostgreSQL server that the tests start and end themselves."""

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL

from service.db.migrate import upgrade
from service.db.session import Database

KINDS = ("sqlite", "postgresql")

_START_TIMEOUT_S = 60
_PR_SET_PDEATHSIG = 1
_USER = "postgres"  # of the packages; the server refuses to run as root
# Nothing has to survive the machine, and many small databases have to be made quickly.
_UNSAFE_AND_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
_TEMPLATE = "migrated"


class Postgres:
    """A running server, reached over a socket in `directory`. New databases are copies of one that was migrated."""

    def __init__(self, directory: Path, command: list[Path | str], user: str | None) -> None:
        """directory: with the data, made by initdb. user: whom the server runs as, if not whoever asks."""
        self._directory = directory
        self._command = command
        self._user = user
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)

    def start(self) -> None:
        """Return when it takes connections."""
        with (self._directory / "log").open("ab") as log:
            self._server = subprocess.Popen(self._command, stderr=log, user=self._user, preexec_fn=_end_with_parent)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while subprocess.run([_programs() / "pg_isready", "--quiet", "--host", self._directory]).returncode:
            assert self._server.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """Without waiting for its clients."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(timeout=60)

    def url(self, database: str) -> str:
        where = URL.create(
            "postgresql+asyncpg", username=_USER, database=database, query={"host": str(self._directory)}
        )
        return where.render_as_string()

    def migrate_template(self) -> None:
        self._execute(f"CREATE DATABASE {_TEMPLATE}")
        upgrade(self.url(_TEMPLATE))

    def create(self, *, migrated: bool = True) -> str:
        """The name of a new database."""
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if migrated else 'template0'}")
        return name

    def drop(self, name: str) -> None:
        """Whoever may still be connected."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(host=str(self._directory), user=_USER, database="postgres")
            await connection.execute(statement)
            await connection.close()

        asyncio.run(execute())


@contextmanager
def postgres(**settings: str) -> Iterator[Postgres]:
    """A new server, with these settings besides what makes it fast; it ends with this process at the latest."""
    programs = _programs()
    directory = Path(tempfile.mkdtemp(prefix="plumbline-pg-"))  # pytest's own are closed to other users
    user = _USER if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(directory, user)
    data = directory / "data"
    make = [programs / "initdb", "--pgdata", data, "--username", _USER, "--auth", "trust", "--no-sync", "--no-locale"]
    subprocess.run([*make, "--encoding", "UTF8"], check=True, user=user, stdout=subprocess.DEVNULL)
    options = {"listen_addresses": "", "unix_socket_directories": str(directory), "max_connections": "200"}
    arguments = [f"--{name}={value}" for name, value in (options | _UNSAFE_AND_FAST | settings).items()]
    server = Postgres(directory, [programs / "postgres", "-D", data, *arguments], user)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        server.migrate_template()
        yield server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.sqlite3"
    upgrade(sqlite_url(path))
    return path


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a database with all tables; of the kind that the test is parametrised with, SQLite if with none."""
    if getattr(request, "param", "sqlite") == "sqlite":
        path = tmp_path / "plumbline.sqlite3"
        shutil.copyfile(request.getfixturevalue("migrated_file"), path)
        yield sqlite_url(path)
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        name = server.create()
        yield server.url(name)
        server.drop(name)


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a database, or a place for one, that nobody has upgraded yet."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "made" / "by" / "upgrade.sqlite3")
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        name = server.create(migrated=False)
        yield server.url(name)
        server.drop(name)


def sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _programs() -> Path:
    """Where the server's programs are: Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        pytest.fail("These tests need a PostgreSQL server: 'apt-get install postgresql'.")
    return found[-1].parent if found else Path(str(on_path)).parent


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What this process executes on that database meanwhile, without the begin of transactions."""
    made: list[str] = []

    def note(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if connection.engine.url == database.engine.url and not statement.startswith("BEGIN"):
            made.append(statement)

    event.listen(Engine, "after_cursor_execute", note)
    try:
        yield made
    finally:
        event.remove(Engine, "after_cursor_execute", note)
