import asyncio
import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from service.db import (  # noqa: F401 - they are compared
    conversation_tables,
    evaluation_tables,
    migrate,
    pair_tables,
    schema_tables,
    serving_tables,
    tenant_tables,
    webhook_tables,
)
from service.db.migrate import is_current, upgrade
from service.db.session import Database
from service.db.tables import Base
from tests.service.conftest import add_job


async def test_the_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


def test_a_database_is_current_only_after_the_upgrade(empty_url: str) -> None:
    async def current() -> bool:
        database = Database(empty_url)
        found = await is_current(database)
        await database.close()
        return found

    Path(str(make_url(empty_url).database)).parent.mkdir(parents=True, exist_ok=True)
    assert not asyncio.run(current())
    upgrade(empty_url)
    assert asyncio.run(current())


def test_upgrading_again_keeps_what_is_there(empty_url: str) -> None:
    upgrade(empty_url)

    async def with_a_job(make: bool) -> int:
        database = Database(empty_url)
        async with database.transaction() as session:
            if make:
                await add_job(session)
            count = (await session.connection()).exec_driver_sql("SELECT count(*) FROM jobs")
            number = (await count).scalar_one()
        await database.close()
        return int(number)

    assert asyncio.run(with_a_job(make=True)) == 1
    upgrade(empty_url)
    assert asyncio.run(with_a_job(make=False)) == 1


def test_processes_that_upgrade_at_once_all_succeed(empty_url: str) -> None:
    code = f"from service.db.migrate import upgrade; upgrade({empty_url!r})"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=600) for process in processes] == [0, 0, 0]


def test_no_migration_changes_with_the_code() -> None:
    for path in Path(migrate.__file__).parent.glob("migrations/versions/*.py"):
        assert "from service" not in path.read_text(), f"{path.name}: what it imports may be another thing later"
