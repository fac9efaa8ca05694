"""Times in statements: the database's clock, which several machines can agree on, and what lies between two times."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Float, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.db.tables import UtcDateTime


class database_time(FunctionElement[datetime]):
    """The time at which the statement runs, `offset_s` seconds later. Not that of the transaction's begin, after which
    the statement may have waited for a lock."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, offset_s: float = 0.0) -> None:
        super().__init__(bindparam(None, float(offset_s)))


@compiles(database_time, "postgresql")
def _postgresql(element: database_time, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kwargs)}))"


@compiles(database_time, "sqlite")
def _sqlite(element: database_time, compiler: SQLCompiler, **kwargs: Any) -> str:
    # as SQLAlchemy writes a DateTime, so that texts compare as times do
    offset = compiler.process(element.clauses, **kwargs)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {offset} || ' seconds')"


class seconds_between(FunctionElement[float]):
    """From `begin` to `end`, to a millisecond: SQLite rounds to it."""

    type = Float()
    inherit_cache = True

    def __init__(self, begin: ColumnElement[datetime], end: ColumnElement[datetime]) -> None:
        super().__init__(begin, end)


@compiles(seconds_between, "postgresql")
def _postgresql_between(element: seconds_between, compiler: SQLCompiler, **kwargs: Any) -> str:
    begin, end = (compiler.process(one, **kwargs) for one in element.clauses)
    return f"CAST(EXTRACT(EPOCH FROM ({end} - {begin})) AS DOUBLE PRECISION)"


@compiles(seconds_between, "sqlite")
def _sqlite_between(element: seconds_between, compiler: SQLCompiler, **kwargs: Any) -> str:
    begin, end = (compiler.process(one, **kwargs) for one in element.clauses)
    return f"((julianday({end}) - julianday({begin})) * 86400.0)"
