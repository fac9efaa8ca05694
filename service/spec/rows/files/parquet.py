"""Parquet, by small batches. Needs pyarrow, which the cluster has and the control plane may do without."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from service.spec.rows.files.compression import bomb, bytes_allowed, compression, open_bytes
from service.spec.rows.files.record import MAX_ROW_BYTES, FileDamage, ReaderMissing, Record

MAGIC = b"PAR1"
_ROWS_PER_BATCH = 128
_BATCH_BYTES = 2**27  # that one column's repeated cells may come to in a batch
_BUFFER = 2**20  # of one column; otherwise a whole row group is read ahead
_HEADER_BYTES, _I32_FIELD, _DICTIONARY_PAGE = 16, b"\x15", 2  # of a page, in Thrift's compact protocol


def read_parquet(path: Path) -> Iterator[Record]:
    """Raises ReaderMissing without pyarrow, and FileDamage where the file is none, holds far more than its size, or has
    a row of more than MAX_ROW_BYTES.

    Null fields of structs are left out: a column of structs has every field in every row, whoever wrote it.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ReaderMissing("Parquet files are read with pyarrow, which is not installed here") from error
    with ExitStack() as stack:
        source: Any = path
        if compression(path):  # Parquet is read from its end, so the whole file is needed
            source = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stack.enter_context(open_bytes(path)), source)
        try:
            file = stack.enter_context(pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER))
            left = bytes_allowed(path)
            _check_announced(file.metadata, left)
            raw = stack.enter_context(path.open("rb")) if source is path else source
            rows_per_batch = max(1, min(_ROWS_PER_BATCH, _BATCH_BYTES // _largest_dictionary(raw, file.metadata)))
            number = 0
            for encoded in file.iter_batches(rows_per_batch):
                columns = [one.dictionary_decode() if hasattr(one, "dictionary") else one for one in encoded.columns]
                batch = pa.RecordBatch.from_arrays(columns, encoded.schema.names)
                left -= batch.nbytes  # a few bytes that say "the same again" are by now all those cells
                if left < 0:
                    raise bomb()
                for value in _values(batch):
                    number += 1
                    yield Record(number, {name: _without_nulls(cell) for name, cell in value.items()})
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise FileDamage("parquet_damaged", f"not a whole Parquet file: {error}"[:300]) from error


def _check_announced(metadata: Any, allowed: int) -> None:
    """Before anything is decoded: by what the file itself says, which the decoder holds it to."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    sizes = sum(max(chunk.total_uncompressed_size, 0) for chunk in chunks)
    if sizes > allowed or sum(chunk.num_values for chunk in chunks) > allowed:
        raise bomb()


def _largest_dictionary(file: BinaryIO, metadata: Any) -> int:
    """Bytes of the largest dictionary page of a column: more than its largest cell has, and at least 1.

    Writers keep dictionaries near 1 MiB, but nothing makes them.
    """
    largest = 1
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        for chunk in (group.column(i) for i in range(group.num_columns)):
            offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
            file.seek(min((offset for offset in offsets if offset), default=0))  # where the decoder begins
            largest = max(largest, _dictionary_bytes(file.read(_HEADER_BYTES)))
    file.seek(0)
    return largest


def _dictionary_bytes(header: bytes) -> int:
    """The uncompressed size in the header of a dictionary page; 0 for any other page.

    header: its first two fields in Thrift's compact protocol, page type and size, each `0x15` and a zigzag varint
    (https://parquet.apache.org/docs/file-format/data-pages/).
    """
    fields = []
    at = 0
    for _ in range(2):
        if header[at : at + 1] != _I32_FIELD:
            raise FileDamage("parquet_damaged", "not a whole Parquet file: a page has no header")
        value, shift, more = 0, 0, True
        at += 1
        while more and at < len(header):
            value |= (header[at] & 0x7F) << shift
            shift, more, at = shift + 7, header[at] > 0x7F, at + 1
        fields.append(value >> 1)
    page_type, size = fields
    return size if page_type == _DICTIONARY_PAGE else 0


def _values(batch: Any) -> Iterator[dict[str, Any]]:
    if batch.nbytes <= MAX_ROW_BYTES:  # so no row of it is longer
        yield from batch.to_pylist()
        return
    for place in range(batch.num_rows):
        row = batch.slice(place, 1)
        if row.nbytes > MAX_ROW_BYTES:
            raise FileDamage("row_too_long", f"the row is longer than {MAX_ROW_BYTES} bytes")
        yield from row.to_pylist()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(cell) for name, cell in value.items() if cell is not None}
    if isinstance(value, list):
        return [_without_nulls(cell) for cell in value]
    return value
