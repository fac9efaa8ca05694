"""An upgrade beside pods of the version before: which schemas code works with that is not theirs."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine import make_url

from service.db import migrate
from service.db.migrate import Schema, schema_of, upgrade
from service.db.session import Database
from service.errors import InvalidState

OWN = ScriptDirectory.from_config(migrate._config())
ADDITIVE = [one for one in OWN.walk_revisions() if getattr(one.module, "additive", False)]


async def state(url: str) -> Schema:
    database = Database(url)
    try:
        return await schema_of(database)
    finally:
        await database.close()


def with_one_more(directory: Path, additive: bool) -> Path:
    """The migrations of a later version."""
    shutil.copytree(migrate.SCRIPTS, directory, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "versions" / "9999_more.py").write_text(
        f'"""More"""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\nrevision = "9999"\n'
        f'down_revision = "{OWN.get_current_head()}"\nadditive = {additive}\n\n\ndef upgrade() -> None:\n'
        '    op.add_column("jobs", sa.Column("mood", sa.String(), nullable=True))\n'
    )
    return directory


@pytest.mark.parametrize(("additive", "seen"), [(True, Schema.NEWER), (False, Schema.FOREIGN)])
def test_code_before_an_upgrade_goes_on_if_the_upgrade_only_added(
    empty_url: str, additive: bool, seen: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(str(make_url(empty_url).database)).parent.mkdir(parents=True, exist_ok=True)
    assert asyncio.run(state(empty_url)) is Schema.BEHIND
    upgrade(empty_url)
    assert asyncio.run(state(empty_url)) is Schema.OWN
    with monkeypatch.context() as later:
        later.setattr(migrate, "SCRIPTS", with_one_more(tmp_path / "later", additive))
        assert asyncio.run(state(empty_url)) is Schema.BEHIND  # the new pods wait
        upgrade(empty_url)
        assert asyncio.run(state(empty_url)) is Schema.OWN
    assert asyncio.run(state(empty_url)) is seen
    assert seen.serves is additive
    if additive:
        upgrade(empty_url)  # of the version before: nothing to do, and nothing undone
        assert asyncio.run(state(empty_url)) is seen
    else:
        with pytest.raises(InvalidState, match="newer version"):
            upgrade(empty_url)


def test_a_chain_is_served_back_to_the_last_migration_that_took_something_away(tmp_path: Path) -> None:
    for additive, served in ((True, migrate.oldest_code(OWN)), (False, "9999")):
        later = with_one_more(tmp_path / str(additive), additive)
        assert migrate.oldest_code(ScriptDirectory.from_config(migrate._config(later))) == served


def look(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    """The tables, as far as code that does not know of a change would meet it."""
    inspector = sa.inspect(connection)
    return {
        table: {
            "columns": {one["name"]: one for one in inspector.get_columns(table)},
            "unique": {
                tuple(one["column_names"])
                for one in [*inspector.get_unique_constraints(table), *inspector.get_indexes(table)]
                if one.get("unique", True)
            },
            "foreign": {tuple(one["constrained_columns"]) for one in inspector.get_foreign_keys(table)},
            "checks": {str(one["sqltext"]) for one in inspector.get_check_constraints(table)},
        }
        for table in inspector.get_table_names()
    }


def in_the_way(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """What keeps code written for `before` from working on `after`."""
    found = [f"no table {table}" for table in before if table not in after]
    for table in set(before) & set(after):
        old, new = before[table], after[table]
        for name, column in old["columns"].items():
            now = new["columns"].get(name)
            if now is None or str(now["type"]) != str(column["type"]) or (column["nullable"] and not now["nullable"]):
                found.append(f"{table}.{name} is gone or narrower")
        added = {name: one for name, one in new["columns"].items() if name not in old["columns"]}
        for name, column in added.items():
            if not column["nullable"] and column["default"] is None:
                found.append(f"{table}.{name} must be given")
        null = {name for name, column in added.items() if column["nullable"] and column["default"] is None}
        for kind in ("unique", "foreign"):  # where old code leaves a NULL, neither asks for anything
            if any(null.isdisjoint(columns) for columns in new[kind] - old[kind]):
                found.append(f"{table}: {kind}")
        if new["checks"] - old["checks"]:
            found.append(f"{table}: checks")
    return found


def seen_around(change: Callable[[sa.Connection], None], connection: sa.Connection) -> list[str]:
    before = look(connection)
    change(connection)
    return in_the_way(before, look(connection))


def to(revision: str) -> Callable[[sa.Connection], None]:
    def change(connection: sa.Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    return change


@pytest.mark.parametrize("script", ADDITIVE, ids=lambda script: script.revision)
def test_a_migration_that_says_so_only_adds(script: Script) -> None:
    with sa.create_engine("sqlite://").begin() as connection:
        to(str(script.down_revision))(connection)
        assert seen_around(to(script.revision), connection) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda op: op.add_column("t", sa.Column("b", sa.Integer(), nullable=True)), []),
        (lambda op: op.add_column("t", sa.Column("b", sa.Integer(), nullable=False, server_default="1")), []),
        (lambda op: op.create_table("u", sa.Column("a", sa.Integer(), nullable=False)), []),
        (lambda op: op.drop_table("t"), ["no table t"]),
        (lambda op: op.alter_column("t", "a", new_column_name="b"), ["t.a is gone or narrower"]),
        (lambda op: op.create_index("i", "t", ["a"], unique=True), ["t: unique"]),
        (
            lambda op: (
                op.add_column("t", sa.Column("b", sa.Integer())),
                op.create_index("i", "t", ["b"], unique=True),
            ),
            [],
        ),
    ],
)
def test_what_would_be_in_the_way_of_older_code_is_noticed(
    change: Callable[[Operations], None], said: list[str]
) -> None:
    with sa.create_engine("sqlite://").begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a INTEGER)"))
        found = seen_around(lambda on: change(Operations(MigrationContext.configure(on))), connection)
    assert found == said


def test_a_column_that_older_code_does_not_fill_is_noticed() -> None:
    with sa.create_engine("sqlite://").begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (a INTEGER)"))
        before = look(connection)
        connection.execute(sa.text("DROP TABLE t"))
        connection.execute(sa.text("CREATE TABLE t (a INTEGER, b INTEGER NOT NULL)"))
        assert in_the_way(before, look(connection)) == ["t.b must be given"]
