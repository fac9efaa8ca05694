from pathlib import Path

import pytest

from api.cli import home
from api.cli.errors import CliError
from api.cli.local_key import local_key
from service.db.migrate import upgrade
from service.settings import Settings


def _prepared(path: Path) -> Settings:
    settings = home.prepare(Settings(home=path))
    upgrade(settings.sqlalchemy_url)
    return settings


def test_secret_key_and_home_are_for_their_owner_only(tmp_path: Path) -> None:
    settings = _prepared(tmp_path / "home")
    key = local_key(settings)
    assert settings.home.stat().st_mode & 0o777 == 0o700
    for name in ("secret", "api-key"):
        assert (settings.home / name).stat().st_mode & 0o777 == 0o600
    assert home.key_file(settings.home).read_text() == key


def test_the_second_time_nothing_is_made_anew(tmp_path: Path) -> None:
    first = _prepared(tmp_path)
    key = local_key(first)
    second = _prepared(tmp_path)
    assert first.secret == second.secret
    assert local_key(second) == key


def test_a_key_that_the_database_does_not_know_is_replaced(tmp_path: Path) -> None:
    settings = _prepared(tmp_path)
    old = local_key(settings)
    for file in settings.home.glob("plumbline.sqlite3*"):
        file.unlink()
    upgrade(settings.sqlalchemy_url)
    new = local_key(settings)
    assert new != old
    assert local_key(settings) == new


def test_a_secret_in_the_environment_wins(tmp_path: Path) -> None:
    settings = home.prepare(Settings(home=tmp_path, secret="mine"))
    assert settings.secret is not None
    assert settings.secret.get_secret_value() == "mine"
    assert not (tmp_path / "secret").exists()


def test_a_home_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    with home.exclusive(tmp_path), pytest.raises(CliError, match="already running"), home.exclusive(tmp_path):
        pass
    with home.exclusive(tmp_path):
        pass


def test_a_home_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CliError, match="PLUMBLINE_HOME"):
        home.prepare(Settings(home=tmp_path / "file" / "home"))


def test_in_production_no_home_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "HOME": tmp_path / "none",
        "ENVIRONMENT": "production",
        "SECRET": "a secret",
        "DATABASE_URL": "sqlite+aiosqlite:///x",
        "STORAGE": tmp_path,
        "API_URL": "http://plumbline:8700",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"PLUMBLINE_{name}", str(value))
    assert home.settings_for_server() == Settings()
    assert not (tmp_path / "none").exists()
