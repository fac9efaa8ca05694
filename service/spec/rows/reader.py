"""The rows of a training file, one after the other, each a `Row` or a `RowProblem`: none is dropped in silence."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from service.spec.rows.files import Record, records
from service.spec.rows.formats import RowFormat, detect
from service.spec.rows.parse import ReadAs, as_object, parse_value, rows_of, used_columns
from service.spec.rows.row import Row, RowError, RowProblem
from service.spec.rows.shaping import RowNeeds

PEEKED = 64
_LONGEST_NAME = 100
_MAX_NAMES = 100  # rows with ever new columns must not fill the memory


class RowReader:
    """Iterate over it for the rows; then it also tells how they were read.

    The format is `needs.format`, or with `auto` that of the first usable row among the first 64 records: the first
    whose columns speak for a format (`formats.detect`) in which it is read without an error; if none is, the format
    that the columns of the first one speak for. All other rows must be of that format too.

    read_as: None until the first row is read, and for a file in which no row speaks for a format.
    ignored_columns: how many rows have each column that the format does not read, for up to 100 columns.
    """

    def __init__(self, path: Path, needs: RowNeeds) -> None:
        self._path = path
        self._needs = needs
        self.read_as: ReadAs | None = None
        self.ignored_columns: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Row | RowProblem]:
        self.ignored_columns.clear()
        self.read_as = None
        stream = records(self._path)
        peeked: list[Record | RowProblem] = []
        for record in islice(stream, PEEKED):
            peeked.append(record)
            found = _read_as(record, self._needs)
            if found and found.conversational is not None:
                self.read_as = found
                break
            self.read_as = self.read_as or found
        for record in chain(peeked, stream):
            if isinstance(record, RowProblem):
                yield record
            else:
                yield from self._rows(record)

    def _rows(self, record: Record) -> Iterator[Row | RowProblem]:
        try:
            value = as_object(record.value)
            if self.read_as is None:
                raise _unknown(value)
            rows = rows_of(value, record.number, self.read_as, self._needs)
        except RowError as error:
            yield RowProblem(record.number, error.code, str(error), error.field)
            return
        used = used_columns(self.read_as.format, self._needs.scores)
        for column in value:
            if column in used:
                continue
            name = column.encode(errors="backslashreplace").decode()[:_LONGEST_NAME]
            if name in self.ignored_columns or len(self.ignored_columns) < _MAX_NAMES:
                self.ignored_columns[name] += 1
        yield from rows


def read_rows(path: Path, needs: RowNeeds) -> RowReader:
    """The rows of a file, or of a directory of files of one kind taken in the order of their names.

    The memory used does not grow with the file. Raises ReaderMissing for Parquet where pyarrow is not installed.
    """
    return RowReader(path, needs)


def _read_as(record: Record | RowProblem, needs: RowNeeds) -> ReadAs | None:
    """What one record says of its file; without `conversational` if it is no usable row."""
    if isinstance(record, RowProblem) or not isinstance(record.value, dict):
        return None
    by_hand = needs.format is not RowFormat.AUTO
    speaks_for = needs.format if by_hand else detect(record.value)
    if speaks_for is None:
        return None
    try:
        row = parse_value(record.value, record.number, speaks_for, needs.scores)
    except RowError:
        return ReadAs(speaks_for, None, by_hand)
    return ReadAs(speaks_for, not isinstance(row.prompt, str), by_hand)


def _unknown(value: dict[str, Any]) -> RowError:
    names = ", ".join(repr(name) for name in list(value)[:10])[:300] or "none"
    return RowError(
        "format_unknown",
        f"the columns ({names}) are those of no known format; a pair, for example, has prompt, chosen and rejected",
    )
