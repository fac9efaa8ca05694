"""CSV with a header. A cell is a string; in the columns that need something else, it spells that as JSON does."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from service.spec.rows.files.record import MAX_ROW_BYTES, FileDamage, Record
from service.spec.rows.formats import ALL_COLUMNS, SCORE_COLUMNS
from service.spec.rows.row import RowProblem

_NUMBERS = SCORE_COLUMNS | {"weight", "margin"}
_LABELS = frozenset({"label", "kto_tag"})
_JSON = frozenset(
    {
        "answers", "conversations", "history", "messages", "non_preferred_output", "preferred_output", "ranked",
        "scores",
    }
)  # fmt: skip
_TEXT_OR_MESSAGES = frozenset({"prompt", "chosen", "rejected", "completion", "input"})
_TURN_KEYS = ({"role"}, {"from", "value"}, {"messages"})

csv.field_size_limit(MAX_ROW_BYTES)  # for the whole process; the default of 128 kB is less than some dialogues have


def is_csv(first_line: bytes) -> bool:
    """Whether the line is a header that names a column of any format.

    One that begins as JSON does is none, whatever it names: text within a JSON value may well read `id,label,score`.
    """
    if first_line.startswith((b"{", b"[")):
        return False
    try:
        names = next(csv.reader([first_line.decode("utf-8-sig")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return False
    return not ALL_COLUMNS.isdisjoint(names)


def read_csv(file: BinaryIO) -> Iterator[Record | RowProblem]:
    """Raises FileDamage for a header with a name twice, where quotes do not end, and for a row of more than
    MAX_ROW_BYTES characters."""
    # broken UTF-8 becomes lone surrogates, which are refused in any text that a row keeps
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True)
    number = 0
    try:
        header = next(reader)
        if len(set(header)) < len(header):
            raise FileDamage("header_repeated", "the header of the CSV file has a column twice")
        lines.begin_row()
        for cells in reader:
            lines.begin_row()
            if not cells:
                continue  # a blank line
            number += 1
            if len(cells) != len(header):
                message = f"{len(cells)} cells under {len(header)} columns: quote cells with commas or line breaks"
                yield RowProblem(number, "row_ragged", message)
                continue
            yield Record(number, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise FileDamage("csv_damaged", f"not CSV: {error}; quotes within a quoted cell are doubled") from error


class _Lines:
    """The lines of a text, as long as those of one row are not too many characters: a row may have any number of cells
    and of lines, and `csv` limits the length of a cell alone."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._left = MAX_ROW_BYTES

    def begin_row(self) -> None:
        self._left = MAX_ROW_BYTES

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise FileDamage("row_too_long", f"the row is longer than {MAX_ROW_BYTES} characters")
        if not line:
            raise StopIteration
        return line


def _cell(name: str, cell: str) -> Any:
    """What the cell spells. An empty one is null; one that spells nothing else stays a string, to be refused."""
    if not cell:
        return None
    if name in _LABELS:
        return {"true": True, "false": False}.get(cell.strip().lower(), cell)
    if name in _NUMBERS:
        return _number(cell)
    if name in _JSON or (name in _TEXT_OR_MESSAGES and cell.lstrip().startswith(("[", "{"))):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
        return value if name in _JSON or _are_messages(value) else cell
    return cell


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _are_messages(value: Any) -> bool:
    """An answer may well be JSON itself; only what looks like messages, or OpenAI's `input`, is taken for them."""
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(
        isinstance(turn, dict) and any(keys <= turn.keys() for keys in _TURN_KEYS) for turn in turns
    )
