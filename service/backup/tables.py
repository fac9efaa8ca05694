"""The database as files: JSON Lines, gzipped, one a table."""

import gzip
import hashlib
import importlib
import json
import pkgutil
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Connection, DateTime, LargeBinary, RowMapping, Table, func, insert, null, select, tuple_
from sqlalchemy.types import TypeDecorator

import service.db
from service.db.tables import Base

BATCH = 1000  # rows held in memory
# what is true of processes that run, or of the database that is restored into
NOT_KEPT = frozenset({"leases", "schema_compatibility"})
_TRIM = 300  # of a message about a row


def tables() -> list[Table]:
    """All tables, each after those that it refers to."""
    for module in pkgutil.iter_modules(service.db.__path__, "service.db."):
        if module.name.endswith("tables"):  # a table is known once its module has been imported
            importlib.import_module(module.name)
    return [table for table in Base.metadata.sorted_tables if table.name not in NOT_KEPT]


def dump(connection: Connection, table: Table, path: Path) -> tuple[int, str]:
    """Write the table's rows to `path`; how many, and the SHA-256 of the file."""
    count = 0
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        for rows in _batches(connection, table):
            for row in rows:
                file.write(json.dumps(_plain(row), separators=(",", ":")).encode() + b"\n")
            count += len(rows)
    return count, digest_of(path)


def load(connection: Connection, table: Table, path: Path) -> int:
    """Insert the rows of a dump; how many. Columns that the dump lacks get their defaults.

    Raises ValueError for a line that is no row of the table.
    """
    parse = {column.name: _parser(column.type) for column in table.columns}
    count, batch = 0, []
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
            batch.append({name: parse[name](value) for name, value in row.items()})
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path.name}, line {number} is no row of {table.name}: {error!s:.{_TRIM}}") from error
        if len(batch) == BATCH:
            connection.execute(insert(table), batch)
            count, batch = count + BATCH, []
    if batch:
        connection.execute(insert(table), batch)
    return count + len(batch)


def is_empty(connection: Connection, table: Table) -> bool:
    return connection.scalar(select(func.count()).select_from(select(table).limit(1).subquery())) == 0


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _batches(connection: Connection, table: Table) -> Iterator[Sequence[RowMapping]]:
    key = tuple_(*table.primary_key.columns)
    query = select(table).order_by(*table.primary_key.columns).limit(BATCH)
    rows = connection.execute(query).mappings().all()
    while rows:
        yield rows
        last = [rows[-1][column.name] for column in table.primary_key.columns]
        rows = connection.execute(query.where(key > tuple_(*last))).mappings().all()


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        yield from file


def _plain(row: Any) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return value


def _parser(kind: Any) -> Callable[[Any], Any]:
    """Of a column's values, as `_value` wrote them."""
    if isinstance(kind, JSON):
        return lambda value: null() if value is None else value  # SQL's NULL; Python's None would be JSON's null
    if isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    parse: Callable[[Any], Any] | None = None
    if isinstance(kind, DateTime):
        parse = datetime.fromisoformat
    elif isinstance(kind, LargeBinary):
        parse = b64decode
    else:
        parse = getattr(kind, "enum_class", None)
    return lambda value: value if value is None or parse is None else parse(value)
