"""What the losses of a job make of rows: which shapes fit, and what becomes of weights, margins and scores."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.spec import AlignmentJob
from service.spec.rows import Row, RowFormat, RowNeeds, RowProblem, RowReader, ScoreUse, read_rows
from service.spec.shapes import DataShape
from tests.spec.test_rows import BAD, GOOD, PAIR, USER

RANKED = {"prompt": "a", "ranked": ["b", "c", "d"]}
DESIRED = {"prompt": "a", "completion": "b", "label": True}
UNDESIRED = {"prompt": "a", "completion": "c", "label": False}
SINGLE = {"prompt": "a", "completion": "b"}


def reader(tmp_path: Path, needs: RowNeeds, *values: Any) -> RowReader:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return read_rows(path, needs)


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        (PAIR, DataShape.PAIRS, [Row(1, "a", ("b", "c"))]),
        (PAIR, DataShape.RANKED, [Row(1, "a", ("b", "c"))]),
        (PAIR, DataShape.UNPAIRED, [Row(1, "a", ("b",), True), Row(1, "a", ("c",), False)]),
        (PAIR, DataShape.ANSWERS, [Row(1, "a", ("b",))]),
        (RANKED, DataShape.PAIRS, "shape_mismatch"),
        (RANKED, DataShape.RANKED, [Row(1, "a", ("b", "c", "d"))]),
        (RANKED, DataShape.UNPAIRED, "shape_mismatch"),
        (RANKED, DataShape.ANSWERS, [Row(1, "a", ("b",))]),
        (RANKED | {"ranked": ["b", "c"]}, DataShape.PAIRS, [Row(1, "a", ("b", "c"))]),
        (DESIRED, DataShape.PAIRS, "shape_mismatch"),
        (DESIRED, DataShape.UNPAIRED, [Row(1, "a", ("b",), True)]),
        (UNDESIRED, DataShape.UNPAIRED, [Row(1, "a", ("c",), False)]),
        (DESIRED, DataShape.ANSWERS, [Row(1, "a", ("b",))]),
        (UNDESIRED, DataShape.ANSWERS, "label_false"),
        (SINGLE, DataShape.PAIRS, "shape_mismatch"),
        (SINGLE, DataShape.RANKED, "shape_mismatch"),
        (SINGLE, DataShape.UNPAIRED, "shape_mismatch"),
        (SINGLE, DataShape.ANSWERS, [Row(1, "a", ("b",))]),
    ],
)
def test_rows_take_the_shape_that_the_losses_learn_from(
    tmp_path: Path, value: Any, shape: DataShape, expected: list[Row] | str
) -> None:
    rows = list(reader(tmp_path, RowNeeds(shape), value))
    if isinstance(expected, str):
        assert [row.code for row in rows if isinstance(row, RowProblem)] == [expected]
    else:
        assert rows == expected


def test_weights_and_margins_are_refused_where_no_loss_uses_them(tmp_path: Path) -> None:
    values = [PAIR | {"weight": 2}, PAIR | {"margin": 1}, PAIR | {"weight": 1, "margin": 0}]
    unused = list(reader(tmp_path, RowNeeds(DataShape.PAIRS, uses_weight=False), *values))
    assert [row.code for row in unused if isinstance(row, RowProblem)] == ["weight_unused", "margin_unused"]
    used = list(reader(tmp_path, RowNeeds(DataShape.PAIRS, uses_weight=True, uses_margin=True), *values))
    assert [(row.weight, row.margin) for row in used if isinstance(row, Row)] == [(2, 0), (1, 1), (1, 0)]


def test_a_split_pair_keeps_its_weight_on_both_halves(tmp_path: Path) -> None:
    rows = list(reader(tmp_path, RowNeeds(DataShape.UNPAIRED), PAIR | {"weight": 3}))
    assert [row.weight for row in rows if isinstance(row, Row)] == [3, 3]


def test_what_a_job_needs_comes_from_its_losses_and_its_data() -> None:
    fields = {"model": "/m", "data": {"train": "hf:owner/name", "format": "hh", "scores": "margin"}}
    needs = RowNeeds.of(AlignmentJob.model_validate(fields | {"losses": [{"type": "sigmoid"}]}))
    assert needs == RowNeeds(DataShape.PAIRS, True, True, RowFormat.HH, ScoreUse.MARGIN)
    coupled = AlignmentJob.model_validate(fields | {"losses": [{"type": "ipo"}, {"type": "aot"}]})
    assert not RowNeeds.of(coupled).uses_weight


@pytest.mark.parametrize(
    ("losses", "scores", "said"),
    [([{"type": "sft"}], "margin", "none of the losses sft"), ([{"type": "aot"}], "weight", "not all of the losses")],
)
def test_scores_that_no_loss_would_take_are_refused_with_the_job(losses: Any, scores: str, said: str) -> None:
    fields = {"model": "/m", "data": {"train": "hf:owner/name", "scores": scores}, "losses": losses}
    with pytest.raises(ValidationError, match=said):
        AlignmentJob.model_validate(fields)


WHOLE = {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]}
BINARIZED = WHOLE | {"score_chosen": 8.5, "score_rejected": 6.0}


def scored(tmp_path: Path, use: ScoreUse, value: Any, shape: DataShape = DataShape.PAIRS) -> Row | RowProblem:
    (row,) = reader(tmp_path, RowNeeds(shape, True, True, scores=use), value)
    return row


@pytest.mark.parametrize(
    ("use", "change", "weight", "margin"),
    [
        (ScoreUse.IGNORE, {}, 1.0, 0.0),
        (ScoreUse.WEIGHT, {}, 2.5, 0.0),
        (ScoreUse.WEIGHT, {"score_rejected": 10}, 1.5, 0.0),
        (ScoreUse.MARGIN, {}, 1.0, 2.5),
        (ScoreUse.MARGIN, {"score_rejected": 8.5}, 1.0, 0.0),
        (ScoreUse.MARGIN, {"weight": 3}, 3.0, 2.5),
    ],
)
def test_scores_of_a_pair_become_its_weight_or_its_margin(
    tmp_path: Path, use: ScoreUse, change: dict[str, Any], weight: float, margin: float
) -> None:
    assert scored(tmp_path, use, BINARIZED | change) == Row(1, [USER], ([GOOD], [BAD]), weight=weight, margin=margin)


@pytest.mark.parametrize(
    ("use", "change", "code", "field"),
    [
        (ScoreUse.MARGIN, {"score_rejected": 9}, "scores_contradict", "score_chosen"),
        (ScoreUse.WEIGHT, {"score_rejected": 8.5}, "weight_not_positive", "weight"),
        (ScoreUse.WEIGHT, {"score_chosen": None}, "score_missing", "score_chosen"),
        (ScoreUse.MARGIN, {"score_chosen": "9"}, "column_type", "score_chosen"),
        (ScoreUse.WEIGHT, {"weight": 2}, "weight_twice", "weight"),
        (ScoreUse.MARGIN, {"margin": 0}, "margin_twice", "margin"),
        (ScoreUse.MARGIN, {"score_chosen": 1e308, "score_rejected": -1e308}, "number_not_finite", "score_chosen"),
    ],
)
def test_scores_that_make_no_weight_and_no_margin_are_told(
    tmp_path: Path, use: ScoreUse, change: dict[str, Any], code: str, field: str
) -> None:
    problem = scored(tmp_path, use, BINARIZED | change)
    assert isinstance(problem, RowProblem)
    assert (problem.code, problem.field) == (code, field)


def test_scores_of_a_ranking_have_a_difference_only_if_there_are_two(tmp_path: Path) -> None:
    two = scored(tmp_path, ScoreUse.MARGIN, {"prompt": "a", "answers": ["b", "c"], "scores": [1, 4]})
    assert two == Row(1, "a", ("c", "b"), margin=3.0)
    three = scored(tmp_path, ScoreUse.WEIGHT, RANKED | {"scores": [3, 2, 1]}, DataShape.RANKED)
    assert isinstance(three, RowProblem)
    assert three.code == "scores_unclear"


PAIRED_MESSAGES = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([PAIR], "standard, explicit prompt"),
        ([{}, {"id": 3}, [1], {"prompt": "a", "chosen": "b"}, PAIRED_MESSAGES], "conversational, explicit prompt"),
        ([{"prompt": None, "chosen": [USER, GOOD], "rejected": [USER, BAD]}], "conversational, implicit prompt"),
        ([{"chosen": "a b", "rejected": "a c"}], "standard, implicit prompt"),
        ([DESIRED | {"messages": [USER]}], "standard, unpaired answers with labels"),
        ([{"prompt": "a", "chosen": "b"}], "explicit prompt"),
        ([{"id": 1}], None),
    ],
)
def test_the_first_usable_row_says_how_a_file_is_read(tmp_path: Path, values: list[Any], words: str | None) -> None:
    rows = reader(tmp_path, RowNeeds(DataShape.PAIRS), *values)
    assert rows.read_as is None
    list(rows)
    assert (rows.read_as.describe() if rows.read_as else None) == words


def test_the_order_of_columns_says_nothing(tmp_path: Path) -> None:
    value = WHOLE | {"messages": [USER, GOOD], "completion": "x"}
    for names in (list(value), list(reversed(value)), sorted(value)):
        rows = reader(tmp_path, RowNeeds(DataShape.PAIRS), {name: value[name] for name in names})
        assert list(rows) == [Row(1, [USER], ([GOOD], [BAD]))]


def test_neither_the_format_nor_the_report_depends_on_the_hash_seed(tmp_path: Path) -> None:
    """TRL takes UltraFeedback's layout for strings or for messages by the order of a set."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(BINARIZED | {f"column {i}": i for i in range(200)}))
    script = """
import sys
from pathlib import Path
from service.spec.rows import RowNeeds, read_rows
from service.spec.shapes import DataShape
rows = read_rows(Path(sys.argv[1]), RowNeeds(DataShape.PAIRS))
print(list(rows), rows.read_as.describe(), rows.ignored_columns)
"""
    said = {
        subprocess.run(
            [sys.executable, "-c", script, str(path)],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in range(4)
    }
    assert len(said) == 1
    assert b"conversational, prompt beside whole dialogues" in said.pop()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, "has implicit prompt"),
        ({"prompt": None, "chosen": "a b", "rejected": "a c"}, "has implicit prompt"),
        (PAIRED_MESSAGES, "has messages"),
        (SINGLE, "has single answers"),
        (BINARIZED, "has prompt beside whole dialogues"),
    ],
)
def test_a_row_of_another_format_than_the_files_is_a_problem(tmp_path: Path, other: Any, said: str) -> None:
    good, problem = reader(tmp_path, RowNeeds(DataShape.PAIRS), PAIR, other)
    assert isinstance(good, Row)
    assert isinstance(problem, RowProblem)
    assert problem.code == "format_mismatch"
    assert "read as 'standard, explicit prompt'" in problem.message
    assert said in problem.message


def test_columns_that_are_not_read_are_counted(tmp_path: Path) -> None:
    rows = reader(tmp_path, RowNeeds(DataShape.PAIRS), PAIR | {"id": 1, "score_chosen": 1}, PAIR | {"id": 2}, {"id": 3})
    for _ in range(2):  # each time anew
        list(rows)
        assert rows.ignored_columns == {"id": 2, "score_chosen": 1}


def test_ever_new_columns_are_not_all_counted(tmp_path: Path) -> None:
    rows = reader(tmp_path, RowNeeds(DataShape.PAIRS), *(PAIR | {f"column {i}": 1} for i in range(300)))
    assert sum(isinstance(row, Row) for row in rows) == 300
    assert len(rows.ignored_columns) == 100
