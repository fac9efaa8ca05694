"""Rows of several tables, written in as few round trips as the database allows."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Executable, Table, bindparam, insert
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import Base

Row = tuple[Table, Mapping[str, Any]]


async def insert_all(session: AsyncSession, rows: Sequence[Row]) -> None:
    """Write the rows, at least one; each after those that it refers to. On PostgreSQL it is one statement, which checks
    references at its end.

    Rows must have a value for each column that has a default in Python. Raises IntegrityError.
    """
    if session.get_bind().dialect.name == "sqlite":
        for table, row in rows:
            await session.execute(_insert(table), row)
        return
    statement = _together(tuple((table, tuple(row)) for table, row in rows))
    values = {f"{column}_{place}": value for place, (_, row) in enumerate(rows) for column, value in row.items()}
    await session.execute(statement, values)


def table_of(kind: type[Base]) -> Table:
    table = kind.__table__
    assert isinstance(table, Table)
    return table


@lru_cache(maxsize=64)
def _insert(table: Table) -> Executable:
    """Made once: to put it together takes longer than to write the row."""
    return insert(table)


@lru_cache(maxsize=64)
def _together(shape: tuple[tuple[Table, tuple[str, ...]], ...]) -> Executable:
    for table, columns in shape:  # of what is no outermost statement SQLAlchemy leaves the defaults out
        assert all(column.default is None or column.name in columns for column in table.columns)
    *others, last = [
        insert(table).values({column: bindparam(f"{column}_{place}") for column in columns})
        for place, (table, columns) in enumerate(shape)
    ]
    return last.add_cte(*(other.cte(f"row_{place}") for place, other in enumerate(others)))
