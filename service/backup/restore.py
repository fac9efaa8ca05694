"""Read a backup into an empty installation."""

import asyncio
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection

from service.backup.artifacts import Artifact, trouble_with
from service.backup.backup import ARTIFACTS, MANIFEST, Manifest
from service.backup.tables import digest_of, is_empty, load, tables
from service.db.migrate import is_current, revision
from service.db.session import Database
from service.errors import InvalidRequest, InvalidState
from service.spec import Storage


async def restore(database: Database, directory: Path) -> Manifest:
    """Insert the rows of the backup, all of them or none.

    The database must have the backup's schema and no rows. Raises InvalidRequest for what is no whole backup or was
    changed since, and InvalidState for a database that has rows, or another schema.
    """
    manifest = await asyncio.to_thread(_checked, directory)
    if not await is_current(database):
        raise InvalidState("The database has not the schema of this version: run `plumbline db upgrade` first.")
    async with database.engine.begin() as connection:
        await connection.run_sync(_load_all, directory, manifest)
    return manifest


def missing(directory: Path, storage: Storage) -> list[str]:
    """What the storage lacks of the backup's artifacts, a line each. Reads every byte: call it in a thread."""
    found = []
    for line in (directory / ARTIFACTS).read_text().splitlines():
        artifact = Artifact.model_validate_json(line)
        if trouble := trouble_with(artifact, storage):
            found.append(f"{artifact.path} {trouble}")
    return found


def _checked(directory: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((directory / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise InvalidRequest(f"{directory} is no backup, or not a whole one: it has no {MANIFEST}.") from error
    except ValidationError as error:
        raise InvalidRequest(f"{directory / MANIFEST} cannot be read by this version.") from error
    expected = {f"{name}.jsonl.gz": table.sha256 for name, table in manifest.tables.items()}
    for name, sha256 in (expected | {ARTIFACTS: manifest.artifacts_sha256}).items():
        path = directory / name
        if not path.is_file() or digest_of(path) != sha256:
            raise InvalidRequest(f"{path} is not as the backup wrote it: use another backup.")
    return manifest


def _load_all(connection: Connection, directory: Path, manifest: Manifest) -> None:
    if (here := revision(connection)) != manifest.revision:
        raise InvalidState(
            f"The backup is of schema {manifest.revision}, this version has {here}: restore it with the version that "
            "made it, then upgrade."
        )
    for table in tables():
        if not is_empty(connection, table):
            raise InvalidState(f"The database has rows ({table.name}): restore into an empty one.")
    for table in tables():
        path = directory / f"{table.name}.jsonl.gz"
        try:
            load(connection, table, path)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
