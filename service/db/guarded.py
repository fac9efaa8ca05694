"""The guarded update: how two writers of one row find out about each other."""

from typing import Any, cast

from sqlalchemy import ColumnElement, Table, inspect, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from service.db.tables import Base


async def guarded_update(
    session: AsyncSession, row: Base, values: dict[str, Any], *guards: ColumnElement[bool]
) -> bool:
    """Write `values` to the table's row and to the object, if all `guards` hold in the table; returns whether they did.

    The object may come from an earlier session: what it was read as is what the guards compare with.
    """
    mapper = inspect(type(row))
    identity = [column == getattr(row, column.name) for column in mapper.primary_key]
    table = cast(Table, mapper.local_table)  # for one of the class the session does more than all the rest takes
    statement = update(table).where(*identity, *guards).values(values).returning(*mapper.primary_key)
    written = await session.execute(statement)
    if written.one_or_none() is None:
        return False
    for name, value in values.items():
        set_committed_value(row, name, value)
    return True
