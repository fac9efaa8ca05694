"""`plumbline check`, which needs no server."""

import json
from pathlib import Path

import pytest

from service.spec.data_report import DataReport
from tests.cli.conftest import plumbline
from tests.models import make_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = {"prompt": "a", "chosen": "be kind", "rejected": "c"}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD) + "\n")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_file_is_reported_on_without_a_model(file: Path) -> None:
    status, out, _ = plumbline("check", str(file))
    assert status == 0
    assert "2 rows, 2 used, 0 left out" in out
    assert "exact duplicates" in out
    assert "answer, characters" in out
    assert "[duplicates]" in out
    assert "read as: standard, explicit prompt" in out


def test_the_format_can_be_set_by_hand(file: Path) -> None:
    status, out, _ = plumbline("check", str(file), "--format", "messages", "--json")
    assert status == 1
    assert DataReport.model_validate_json(out).bad == 2


def test_with_a_model_its_tokens_are_counted(file: Path, model: Path) -> None:
    status, out, _ = plumbline("check", str(file), "--model", str(model), "--json")
    report = DataReport.model_validate_json(out)
    assert status == 0
    assert (report.unit, report.used, report.duplicates.rows) == ("tokens", 2, [2])
    assert report.answer_tokens is not None


def test_rows_that_cannot_be_used_make_the_exit_status_1(file: Path) -> None:
    file.write_text(file.read_text() + "nonsense\n")
    status, out, _ = plumbline("check", str(file))
    assert status == 1
    assert "row_not_json" in out


def test_limits_are_those_of_the_job(file: Path, model: Path) -> None:
    limits = ("--truncation", "error", "--max-completion-length", "1")
    status, out, _ = plumbline("check", str(file), "--model", str(model), "--json", *limits)
    assert status == 1
    assert [reason.code for reason in DataReport.model_validate_json(out).reasons] == ["row_too_long"]


def test_what_is_wrong_with_the_options_is_said(file: Path, tmp_path: Path) -> None:
    status, _, err = plumbline("check", str(file), "--loss", "hing")
    assert status == 1
    assert "Did you mean 'hinge'?" in err
    status, _, err = plumbline("check", str(file), "--max-length", "3")
    assert status == 1
    assert "data.max_length" in err
    status, _, err = plumbline("check", str(file), "--model", str(tmp_path))
    assert status == 1
    assert "tokenizer_missing" in err
    assert plumbline("check", str(tmp_path / "absent"))[0] == 2


def test_a_format_and_the_use_of_scores_can_be_set_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,chosen,rejected,score_chosen,score_rejected\nx,It is so,It is not,1,2\n")
    status, out, _ = plumbline("check", str(path))
    assert status == 0
    assert "read as: standard, explicit prompt" in out
    assert "score_chosen" in out  # ignored, and said so
    status, out, _ = plumbline("check", str(path), "--format", "implicit", "--scores", "margin")
    assert status == 1
    assert "chosen scores lower than rejected" in out


@pytest.mark.parametrize(("example", "loss"), [("thumbs.csv", "kto"), ("ranked.json", "plackett_luce")])
def test_rows_for_another_loss_are_met_with_the_option_that_reads_them(example: str, loss: str) -> None:
    path = str(EXAMPLES / example)
    status, _, err = plumbline("check", path)
    assert status == 1
    assert "--loss" in err
    assert loss in err
    status, _, err = plumbline("check", path, "--loss", loss)
    assert status == 0
    assert "--loss" not in err


def test_a_pair_that_is_two_rows_to_the_loss_is_counted_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(GOOD | {"prompt": prompt}) + "\n" for prompt in "ab"))
    status, out, _ = plumbline("check", str(path), "--loss", "kto")
    assert status == 0
    assert "2 rows make 4 for the job, 4 used, 0 left out" in out
