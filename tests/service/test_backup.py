"""A backup of one installation, restored into an empty one, of the same or of the other kind of database."""

import gzip
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from api.cli.main import app
from service.backup.backup import back_up
from service.backup.restore import missing, restore
from service.backup.tables import tables
from service.clock import utc_now
from service.db.migrate import upgrade
from service.db.session import Database
from service.db.tables import Forecast, JobLabel
from service.errors import InvalidRequest, InvalidState
from service.jobs import attempts
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.jobs.transitions import transition
from service.keys.service import create_key, verify_key
from service.projects import service as projects
from service.settings import Settings
from service.spec import Storage
from tests.service.conftest import add_file, add_job


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.storage_root)


@pytest.fixture
async def key(database: Database, settings: Settings, storage: Storage) -> str:
    """A key of an installation with a bit of everything."""
    await add_file(database, settings, b'{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    model = storage.model("job-1")
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    async with database.transaction() as session:
        await projects.ensure(session, "ada")
        job = await add_job(session, gpus=0.5)
        session.add(JobLabel(job_id=job.id, project_id="ada", name="team", value="ünïcode\n"))
        await attempts.start_attempt(session, job)
        await transition(session, job, JobState.RUNNING, reason="a message")
        now = utc_now()
        session.add(
            Forecast(
                job_id=job.id, moment="queued", made_at=now, start_low=now, start_high=None,
                finish_low=now, finish_high=now + timedelta(hours=1),
            )
        )  # fmt: skip
        return (await create_key(session, project_id="ada", name="backup"))[1]


@pytest.fixture
async def other(empty_url: str) -> AsyncIterator[Database]:
    import asyncio

    await asyncio.to_thread(upgrade, empty_url)
    database = Database(empty_url)
    yield database
    await database.close()


async def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    async with database.reading() as session:
        return {
            table.name: [
                tuple(row) for row in await session.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables()
        }


async def test_what_is_restored_is_what_was_there(
    database: Database, other: Database, storage: Storage, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.backup.tables.BATCH", 2)
    made = await back_up(database, storage, tmp_path / "backup")
    read = await restore(other, tmp_path / "backup")
    before, after = await rows(database), await rows(other)
    assert after == before
    assert read.rows == made.rows == sum(map(len, before.values()))
    assert all(before[name] for name in ("jobs", "events", "attempts", "forecasts", "job_labels", "api_keys", "files"))
    assert missing(tmp_path / "backup", storage) == []
    assert (await verify_key(other, key)).project_id == "ada"
    async with other.transaction() as session:  # it is not only readable: work goes on
        (job,) = (await JobRepository(session).page("ada", limit=5, cursor=None, metadata={"team": "ünïcode\n"}))[0]
        await transition(session, job, JobState.CANCELLING, reason="a message")


async def test_what_the_storage_lacks_is_named(database: Database, storage: Storage, key: str, tmp_path: Path) -> None:
    await back_up(database, storage, tmp_path / "backup")
    (upload,) = storage.files.iterdir()
    upload.write_bytes(b"x" * upload.stat().st_size)
    (storage.model("job-1") / "model.safetensors").unlink()
    assert missing(tmp_path / "backup", storage) == [
        f"files/{upload.name} has another content",
        "models/job-1/model.safetensors is missing",
    ]


async def test_a_backup_is_of_one_moment_although_others_write(
    database: Database, storage: Storage, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.backup import backup

    jobs_before = len((await rows(database))["jobs"])
    dump, upgraded = backup.dump, []

    def dump_while_another_writes(connection: Any, table: Any, path: Path) -> tuple[int, str]:
        found = dump(connection, table, path)
        if not upgraded:  # after the first table has been read
            upgraded.append(write_elsewhere(database))
        return found

    monkeypatch.setattr(backup, "dump", dump_while_another_writes)
    made = await back_up(database, storage, tmp_path / "backup")
    assert made.tables["jobs"].rows == jobs_before
    assert len((await rows(database))["jobs"]) == jobs_before + 1


def write_elsewhere(database: Database) -> None:
    """Commit a job from another thread, with a connection and an event loop of its own."""
    import asyncio
    import threading

    async def write() -> None:
        another = Database(database.engine.url.render_as_string(hide_password=False))
        async with another.transaction() as session:
            await add_job(session)
        await another.close()

    thread = threading.Thread(target=lambda: asyncio.run(write()))
    thread.start()
    thread.join(60)


async def test_nothing_is_restored_over_rows_or_from_a_broken_backup(
    database: Database, other: Database, storage: Storage, key: str, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    await back_up(database, storage, backup)
    with pytest.raises(InvalidRequest, match="is there already"):
        await back_up(database, storage, backup)
    with pytest.raises(InvalidState, match="has rows"):
        await restore(database, backup)
    with pytest.raises(InvalidRequest, match="no backup, or not a whole one"):
        await restore(other, tmp_path)
    (backup / "events.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(InvalidRequest, match="not as the backup wrote it"):
        await restore(other, backup)
    assert not any((await rows(other)).values())


async def test_a_backup_of_another_schema_is_refused(
    database: Database, other: Database, storage: Storage, tmp_path: Path
) -> None:
    await back_up(database, storage, tmp_path / "backup")
    manifest = tmp_path / "backup" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"revision": "0003"}))
    with pytest.raises(InvalidState, match=r"schema 0003.*the version that made it"):
        await restore(other, tmp_path / "backup")


def test_the_commands_say_what_they_did(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("HOME", str(settings.home)), ("DATABASE_URL", settings.sqlalchemy_url)):
        monkeypatch.setenv(f"PLUMBLINE_{name}", value)
    made = CliRunner().invoke(app, ["admin", "backup", str(tmp_path / "backup")])
    assert made.exit_code == 0, made.output
    assert "a list of 0 artifacts" in made.output
    refused = CliRunner().invoke(app, ["admin", "restore", str(tmp_path / "nothing")])
    assert refused.exit_code == 1
    assert "is no backup" in refused.output
    read = CliRunner().invoke(app, ["admin", "restore", str(tmp_path / "backup")])
    assert read.exit_code == 0, read.output
    assert "All 0 artifacts are there." in read.output
