"""Rows of a dataset: read from any accepted file, checked, and brought to one shape.

    files/       JSON Lines, JSON, CSV and Parquet, plain or compressed -> numbered values
    formats      which format a value speaks for
    preference, openai, llama_factory, ranked, single      value -> `Dialogue`, one small function per format
    parse        value -> `Row`: what all formats have in common
    shaping      `Row` -> the rows that a job's losses learn from
    reader       all of it for a file

Data flows down this list only in `reader`; every function below it is pure and takes one value.
"""

from service.spec.rows.files import ReaderMissing
from service.spec.rows.formats import RowFormat, ScoreUse
from service.spec.rows.messages import THOUGHTS
from service.spec.rows.parse import ReadAs, parse_value, rows_of
from service.spec.rows.reader import RowReader, read_rows
from service.spec.rows.row import Message, Row, RowError, RowProblem, Text
from service.spec.rows.shaping import RowNeeds

__all__ = [
    "THOUGHTS",
    "Message",
    "ReadAs",
    "ReaderMissing",
    "Row",
    "RowError",
    "RowFormat",
    "RowNeeds",
    "RowProblem",
    "RowReader",
    "ScoreUse",
    "Text",
    "parse_value",
    "read_rows",
    "rows_of",
]
