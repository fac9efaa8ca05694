import json
from pathlib import Path
from typing import Any

from service.evaluations.prompts import from_file
from service.spec import AlignmentJob
from workers.data.held_out import write_held_out


def _job(**data: Any) -> AlignmentJob:
    return AlignmentJob.model_validate({"model": "/models/tiny", "data": {"train": "file-" + "0" * 21} | data})


def _pairs(path: Path, count: int) -> Path:
    rows = [{"prompt": f"question {at}", "chosen": "Yes.", "rejected": "No."} for at in range(1, count + 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_rows_that_were_kept_out_are_there_as_text(tmp_path: Path) -> None:
    to = tmp_path / "held_out.jsonl"
    assert write_held_out(_job(), [2, 5], _pairs(tmp_path / "a.jsonl", 6), None, to) == 2
    assert [json.loads(line) for line in to.read_text().splitlines()] == [
        {"row": 2, "prompt": "question 2", "answers": ["Yes.", "No."]},
        {"row": 5, "prompt": "question 5", "answers": ["Yes.", "No."]},
    ]
    assert write_held_out(_job(), [1], tmp_path / "gone", None, to) == 2  # a second attempt finds it done
    assert [item.prompt for item in from_file(to, 10)] == ["question 2", "question 5"]


def test_rows_of_a_validation_file_have_negative_numbers(tmp_path: Path) -> None:
    to = tmp_path / "held_out.jsonl"
    assert write_held_out(_job(), [-1], _pairs(tmp_path / "a", 3), _pairs(tmp_path / "b", 2), to) == 1
    assert json.loads(to.read_text())["row"] == -1
