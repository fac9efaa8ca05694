"""What a database says when it is in trouble, as against when it was asked something wrong.

SQLAlchemy's classes do not tell: asyncpg's errors of a server that shuts down, fails over, is full or has found a
deadlock are plain `DBAPIError`, and SQLite's error of a malformed query is an `OperationalError` as one of a full disk
is.
"""

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# For work that asks again whatever it was. OSError: nobody listens there, or nobody answers in time.
TROUBLE = (DBAPIError, PoolTimeout, OSError)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CLASSES = (
    "08",  # connection exception
    "28",  # invalid authorization: as after a changed password
    "3D",  # no such database
    "40",  # the transaction was rolled back: a deadlock
    "53",  # no disk, no memory, no connection left
    "57",  # shut down, starting up, cancelled
    "58",  # an error of its system
)
_STATES = (
    "25006",  # read-only, as a standby is
    "25P03",  # idle in a transaction for too long
    "55P03",  # a lock was not to be had
    "42P01",  # no such table...
    "42703",  # ...or column: it lacks its upgrade
)
_LACKS_UPGRADE = ("no such table", "no such column", "has no column named")  # in SQLite's words


def does_not_answer(error: DBAPIError | PoolTimeout) -> bool:
    """Whether the same request may do well later; otherwise it is a bug of ours."""
    if isinstance(error, PoolTimeout) or error.connection_invalidated:
        return True
    if sqlstate := getattr(error.orig, "sqlstate", None):
        return str(sqlstate).startswith(_CLASSES) or sqlstate in _STATES
    if not isinstance(error, OperationalError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)  # none of what `Database` raises itself
    return code != sqlite3.SQLITE_ERROR or any(words in str(error.orig) for words in _LACKS_UPGRADE)
