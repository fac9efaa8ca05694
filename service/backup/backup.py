"""Write a backup, whole or not at all."""

import asyncio
import json
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from service.backup.artifacts import list_artifacts
from service.backup.tables import digest_of, dump, tables
from service.clock import utc_now
from service.db.migrate import revision
from service.db.session import Database
from service.errors import InvalidRequest
from service.spec import Storage

MANIFEST, ARTIFACTS = "manifest.json", "artifacts.jsonl"


class TableFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    rows: int
    sha256: str


class Manifest(BaseModel):
    """revision: of the schema. tables: by name; each is in NAME.jsonl.gz."""

    model_config = ConfigDict(frozen=True)

    made_at: str
    revision: str
    tables: dict[str, TableFile]
    artifacts: int
    artifacts_sha256: str

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())


async def back_up(database: Database, storage: Storage, directory: Path) -> Manifest:
    """Write database and list of artifacts to `directory`, which must not be there yet.

    The database is as it was at one moment, while others write; the artifacts are listed afterwards, so that whatever
    it refers to is listed, unless it was deleted in between. Raises InvalidRequest for a directory that is there, and
    OSError if it cannot be written; a backup that was broken off leaves `directory`.partial.
    """
    partial = _begun(directory)
    async with database.snapshot() as connection:
        written = await connection.run_sync(_dump_all, partial)
        schema = await connection.run_sync(revision)
    count = await asyncio.to_thread(_write_artifacts, storage, partial / ARTIFACTS)
    return _finished(
        directory,
        partial,
        Manifest(
            made_at=utc_now().isoformat(),
            revision=schema or "",
            tables=written,
            artifacts=count,
            artifacts_sha256=digest_of(partial / ARTIFACTS),
        ),
    )


def _begun(directory: Path) -> Path:
    if directory.exists():
        raise InvalidRequest(f"{directory} is there already: name a new directory for each backup.")
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)  # keys' digests, prompts and webhooks' secrets are in it
    return partial


def _finished(directory: Path, partial: Path, manifest: Manifest) -> Manifest:
    (partial / MANIFEST).write_text(json.dumps(manifest.model_dump(), indent=2))
    partial.rename(directory)
    return manifest


def _dump_all(connection: Connection, directory: Path) -> dict[str, TableFile]:
    written = {}
    for table in tables():
        rows, sha256 = dump(connection, table, directory / f"{table.name}.jsonl.gz")
        written[table.name] = TableFile(rows=rows, sha256=sha256)
    return written


def _write_artifacts(storage: Storage, path: Path) -> int:
    count = 0
    with path.open("w") as file:
        for artifact in list_artifacts(storage):
            file.write(artifact.model_dump_json() + "\n")
            count += 1
    return count
