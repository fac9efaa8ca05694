"""Pages of lists: at most so many rows, and from where the next page goes on."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.errors import InvalidRequest
from service.ids import is_id

T = TypeVar("T")

MAX_PAGE = 1000


def checked_cursor(cursor: str, prefix: str) -> str:
    """prefix: of the IDs that the list gives out as cursors. Raises InvalidRequest."""
    if not is_id(prefix, cursor):
        raise InvalidRequest(
            "'cursor' is not one that this list gave out: use `next_cursor` of the last page as it is.", field="cursor"
        )
    return cursor


def cut(rows: Sequence[T], limit: int, id_of: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """The page, and the cursor of the next one, None at the end. rows: one more than `limit`, if there are so many."""
    return rows[:limit], id_of(rows[limit - 1]) if len(rows) > limit else None
