"""JSON Lines: one value a line, blank lines skipped but counted."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from service.spec.rows.files.record import MAX_ROW_BYTES, FileDamage, Record
from service.spec.rows.row import RowError, RowProblem


def read_jsonl(lines: BinaryIO) -> Iterator[Record | RowProblem]:
    number = 0
    while line := lines.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            raise FileDamage("row_too_long", f"the line is longer than {MAX_ROW_BYTES} bytes")
        if line.strip():
            try:
                yield Record(number, parse_line(line, number))
            except RowError as error:
                yield RowProblem(number, error.code, str(error), error.field)


def parse_line(line: bytes, number: int) -> Any:
    """Raises RowError if the line is not UTF-8 or not JSON."""
    try:
        return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise RowError("row_not_utf8", f"not UTF-8 text at byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError too
        hint = "; nor is it the header of a CSV file, which names a column such as prompt" if number == 1 else ""
        raise RowError("row_not_json", f"not a JSON value: {error}{hint}") from error
