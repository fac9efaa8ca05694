"""docs/migration.md: every job in it is one, every option that it names is there, and its Python runs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from api.cli.submit import read_spec
from service.spec import AlignmentJob, Loss, LossKind
from service.spec.rows import Row, RowNeeds, read_rows
from service.spec.shapes import DataShape

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migration.md").read_text()
LANGUAGES = ("yaml", "json", "jsonl", "python")
FILE = "file-019316f0a6b2f3c1d4e5a"
SMALLEST = {"model": "/m", "data": {"train": FILE}}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def our_cells() -> list[str]:
    """The middle cells of the tables: what a peer's option is called here."""
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("|") and not line.startswith("|---")]
    assert all(len(row) == 3 for row in rows), "a row with other than three cells"
    return [row[1] for row in rows if row[1] != "Plumbline"]


def our_code() -> list[str]:
    return sorted({code for cell in our_cells() for code in re.findall(r"`([^`]+)`", cell)})


LOSSES = [code for code in our_code() if code.startswith("{")]
OPTIONS = [code for code in our_code() if re.match(r"(name|model|reference|data|training|evaluation)\b", code)]


@pytest.mark.parametrize("block", blocks("yaml"))
def test_a_yaml_snippet_is_a_job_that_could_be_submitted(block: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(block)
    spec = read_spec(tmp_path / "job.yaml")
    assert spec["data"]["train"].endswith(".jsonl")  # a path, which `plumbline submit` uploads
    AlignmentJob.model_validate(spec | {"data": spec["data"] | {"train": FILE}})


@pytest.mark.parametrize("block", blocks("json"))
def test_a_json_snippet_is_a_job_that_could_be_posted(block: str) -> None:
    AlignmentJob.model_validate(json.loads(block))


@pytest.mark.parametrize("block", blocks("jsonl"))
def test_the_rows_of_a_snippet_are_read(block: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(block)
    shape = DataShape.PAIRS
    if '"ranked"' in block:
        shape = DataShape.RANKED
    elif '"label"' in block:
        shape = DataShape.UNPAIRED
    rows = list(read_rows(tmp_path / "rows.jsonl", RowNeeds(shape)))
    assert len(rows) == len(block.splitlines())
    assert [row for row in rows if not isinstance(row, Row)] == []


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_snippet_runs(block: str) -> None:
    subprocess.run([sys.executable, "-c", block], check=True, cwd=ROOT, timeout=120)


@pytest.mark.parametrize("code", LOSSES)
def test_a_loss_in_a_table_is_one(code: str, tmp_path: Path) -> None:
    (tmp_path / "loss.yaml").write_text(code)
    term: Any = TypeAdapter(Loss).validate_python(read_spec(tmp_path / "loss.yaml"))
    assert AlignmentJob.model_validate(SMALLEST | {"losses": [term.model_dump()]}).losses == [term]


@pytest.mark.parametrize("code", OPTIONS)
def test_an_option_in_a_table_is_there_and_takes_the_value(code: str, tmp_path: Path) -> None:
    path, _, value = code.partition(": ")
    if not value:  # named alone
        job: Any = AlignmentJob.model_validate(SMALLEST | {"training": {"method": {"type": "lora"}}})
        for part in path.split("."):
            assert hasattr(job, part), f"{code} has no {part}"
            job = getattr(job, part)
        return
    *parents, name = path.split(".")
    nested: dict[str, Any] = {}
    at = nested
    for part in parents:
        at[part] = dict(SMALLEST.get(part, {}))
        at = at[part]
    (tmp_path / "value.yaml").write_text(f"{name}: {value}")
    at |= read_spec(tmp_path / "value.yaml")
    job = AlignmentJob.model_validate(SMALLEST | nested)
    for part in path.split("."):
        job = getattr(job, part)


def test_every_loss_is_on_the_page() -> None:
    assert [kind for kind in LossKind if f"type: {kind}" not in PAGE] == []


def test_links_lead_to_what_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        text = (ROOT / "docs" / file).read_text() if file else PAGE
        assert not anchor or re.search(rf"^#+ {anchor}$", text, re.MULTILINE | re.IGNORECASE)


def test_there_is_something_of_each_kind() -> None:
    assert all(len(found) > 1 for found in (*map(blocks, LANGUAGES), LOSSES, OPTIONS))
