"""docs/tokens.md names every warning of the data report and every reason that preparation gives."""

import re
from pathlib import Path

from service.spec.data_report import AdviceCode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tokens.md").read_text()


def test_every_warning_is_explained() -> None:
    assert [code for code in AdviceCode if f"| `{code}` |" not in PAGE] == []


def test_every_reason_of_preparation_is_explained() -> None:
    sources = (ROOT / "workers" / "data").glob("*.py")
    raised = {code for source in sources for code in re.findall(r'RowError\(\s*"(\w+)"', source.read_text())}
    assert "template_not_incremental" in raised
    assert {code for code in raised if f"`{code}`" not in PAGE} == {"row_not_utf8"}  # which the reader says first
