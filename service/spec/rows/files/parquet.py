"""Parquet, by small batches. Needs pyarrow, which the cluster has and the control plane may do without."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from service.spec.rows.files.compression import bytes_allowed, compression, open_bytes
from service.spec.rows.files.record import FileDamage, ReaderMissing, Record

MAGIC = b"PAR1"
_ROWS_PER_BATCH = 128  # a dictionary-encoded column may repeat a cell of megabytes in each row
_BUFFER = 2**20  # of one column; otherwise a whole row group is read ahead


def read_parquet(path: Path) -> Iterator[Record]:
    """Raises ReaderMissing without pyarrow, and FileDamage where the file is none or holds far more than its size.

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
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > bytes_allowed(path):
                raise FileDamage("compression_bomb", "the file holds far more than its own size")
            number = 0
            for batch in file.iter_batches(_ROWS_PER_BATCH):
                for value in batch.to_pylist():
                    number += 1
                    yield Record(number, {name: _without_nulls(cell) for name, cell in value.items()})
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise FileDamage("parquet_damaged", f"not a whole Parquet file: {error}"[:300]) from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(cell) for name, cell in value.items() if cell is not None}
    if isinstance(value, list):
        return [_without_nulls(cell) for cell in value]
    return value
