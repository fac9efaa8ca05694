"""pyarrow, which looks for pandas once and does without it here (see `workers.lean`)."""

from workers.lean import without

with without("pandas"):
    import pyarrow as pa
    import pyarrow.dataset
    import pyarrow.parquet as pq

    pa.array([0])  # here it looks

__all__ = ["pa", "pq"]
