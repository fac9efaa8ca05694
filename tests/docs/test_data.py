"""docs/data.md lists every format, and each example on it is read as it says."""

import re
from pathlib import Path

import pytest

from service.spec.rows import Row, RowFormat, RowNeeds, read_rows
from service.spec.rows.formats import COMMON_COLUMNS, SCORE_COLUMNS
from service.spec.shapes import DataShape

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
EXAMPLES = [
    (heading, words, block)
    for heading, section in re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    for words, block in re.findall(r"^read as: (.*?)\n\n```json\n(.*?)```", section, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("heading", "words", "block"), EXAMPLES)
def test_an_example_is_read_as_the_page_says(tmp_path: Path, heading: str, words: str, block: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(block)
    shape = DataShape.RANKED if "ranked" in block or "answers" in block else DataShape.UNPAIRED
    shape = DataShape.ANSWERS if heading in ("completion", "messages") else shape
    rows = read_rows(path, RowNeeds(shape))
    assert all(isinstance(row, Row) for row in rows)
    assert rows.read_as is not None
    assert (rows.read_as.format, rows.read_as.describe()) == (heading, words)


def test_every_format_has_an_example() -> None:
    assert {heading for heading, _, _ in EXAMPLES} == set(RowFormat) - {RowFormat.AUTO}


def test_every_column_of_every_format_is_described() -> None:
    table = PAGE.partition("## Columns of every format\n")[2].partition("\n## ")[0]
    described = {
        name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert described >= COMMON_COLUMNS | SCORE_COLUMNS
