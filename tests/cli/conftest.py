"""A real API and controller in a thread, over a Ray that is not there: what the commands need but no job starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import home
from api.cli.control_plane import ControlPlane
from api.cli.local_key import local_key
from api.cli.main import app
from api.cli.processes import free_port
from api.client import Client
from service.db.migrate import upgrade
from service.settings import Settings
from tests.service.conftest import make_model

ROW = '{"prompt": "Say hello.", "chosen": "Hello, and welcome!", "rejected": "What?"}\n'


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    directory = tmp_path_factory.mktemp("cli")
    settings = home.prepare(
        Settings(home=directory, port=free_port(), ray_url="http://127.0.0.1:9", model_roots=[directory])
    )
    make_model(directory / "tiny")
    upgrade(settings.sqlalchemy_url)
    local_key(settings)
    running = ControlPlane(settings)
    running.start()
    yield settings
    running.stop()


@pytest.fixture
def local(control_plane: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The environment of a user on this machine."""
    for name in ("PLUMBLINE_URL", "PLUMBLINE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PLUMBLINE_HOME", str(control_plane.home))
    monkeypatch.setenv("PLUMBLINE_PORT", str(control_plane.port))
    monkeypatch.setenv("COLUMNS", "200")
    return control_plane


@pytest.fixture
def client(control_plane: Settings) -> Iterator[Client]:
    with Client(control_plane.public_url, home.key_file(control_plane.home).read_text()) as client:
        yield client


def plumbline(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command. An exception that escapes it fails the test."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def write_job(directory: Path, model: Path, **fields: str) -> Path:
    """A job file beside its training file."""
    (directory / "pairs.jsonl").write_text(ROW)
    lines = {"model": str(model), "data": "{train: pairs.jsonl}"} | fields
    path = directory / "job.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    return path
