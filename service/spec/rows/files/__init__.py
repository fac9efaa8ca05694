"""Files of rows to numbered values: JSON Lines, JSON, CSV and Parquet, each plain or compressed.

What a file is, is told by its content: Parquet by its magic number, JSON by its bracket, CSV by a header that names a
known column; all else is JSON Lines.
"""

from collections.abc import Iterator
from pathlib import Path

from service.spec.rows.files.compression import open_bytes
from service.spec.rows.files.csv_rows import is_csv, read_csv
from service.spec.rows.files.json_array import read_json_array
from service.spec.rows.files.jsonl import parse_line, read_jsonl
from service.spec.rows.files.parquet import MAGIC, read_parquet
from service.spec.rows.files.record import MAX_ROW_BYTES, FileDamage, ReaderMissing, Record
from service.spec.rows.row import RowProblem

__all__ = ["MAX_ROW_BYTES", "ReaderMissing", "Record", "parse_line", "records"]

_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an empty one
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"ustar": "tar",  # at byte 257
}


def records(path: Path) -> Iterator[Record | RowProblem]:
    """The values of a file, or of the files of a directory by name, numbered through; the last may be a fatal problem.

    Raises ReaderMissing, before the first value.
    """
    before = 0
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        last = 0
        try:
            for record in _read(file):
                last = record.number if isinstance(record, Record) else record.row
                yield _shifted(record, before)
        except FileDamage as error:
            yield RowProblem(before + last + 1, error.code, str(error), fatal=True)
            return
        before += last


def _read(path: Path) -> Iterator[Record | RowProblem]:
    with open_bytes(path) as file:
        start = file.peek().removeprefix(b"\xef\xbb\xbf").lstrip()
        for magic, archive in _ARCHIVES.items():
            if start.startswith(magic) or (archive == "tar" and start[257:262] == magic):
                raise FileDamage(
                    "archive",
                    f"this is a {archive} archive and not a file of rows: unpack it, and compress the file itself, "
                    "with gzip, zstd, bzip2 or xz, if it is large",
                )
        if not start.startswith(MAGIC):
            if start.startswith(b"["):
                yield from read_json_array(file)
            elif is_csv(start.splitlines()[0] if start else b""):
                yield from read_csv(file)
            else:
                yield from read_jsonl(file)
            return
    yield from read_parquet(path)


def _shifted(record: Record | RowProblem, by: int) -> Record | RowProblem:
    if not by:
        return record
    if isinstance(record, Record):
        return Record(record.number + by, record.value)
    return RowProblem(record.row + by, record.code, record.message, record.field, record.fatal)
