"""Rows of every accepted form, and every way a row can be wrong."""

import contextlib
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.spec.rows import Row, RowError, RowProblem, parse_row, read_rows
from service.spec.shapes import DataShape

HH = Path(__file__).parents[1] / "data" / "hh_rlhf_harmless_base_test.jsonl.gz"
USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "Hello!"}
BAD = {"role": "assistant", "content": "What?"}


def parse(value: Any, shape: DataShape = DataShape.PAIRS) -> Row:
    return parse_row(json.dumps(value).encode(), 1, shape)


def test_explicit_prompt_of_strings() -> None:
    row = parse({"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"})
    assert row == Row(1, "1 + 1 =", (" 2", " 3"))


def test_explicit_prompt_of_messages() -> None:
    row = parse({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]})
    assert row == Row(1, [USER], ([GOOD], [BAD]))


def test_implicit_prompt_is_what_both_dialogues_start_with() -> None:
    row = parse({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, GOOD, USER, BAD]})
    assert row == Row(1, [USER, GOOD, USER], ([GOOD], [BAD]))


def test_hh_text_becomes_messages() -> None:
    start = "\n\nHuman: Hi\n\nAssistant:"
    row = parse({"chosen": f"{start} Hello!", "rejected": f"{start} What?"})
    assert row == Row(1, [USER], ([GOOD], [BAD]))


def test_completion_without_a_rival_is_enough_for_sft() -> None:
    assert parse({"prompt": "a", "completion": "b"}, DataShape.ANSWERS) == Row(1, "a", ("b",))
    assert parse({"messages": [USER, GOOD]}, DataShape.ANSWERS) == Row(1, [USER], ([GOOD],))


def test_an_answer_without_a_question_is_refused() -> None:
    with pytest.raises(RowError) as error:
        parse({"messages": [GOOD]}, DataShape.ANSWERS)
    assert error.value.code == "prompt_missing"


def test_pairs_serve_sft_too() -> None:
    assert parse({"prompt": "a", "chosen": "b", "rejected": "c"}, DataShape.ANSWERS).answers[1] == "c"


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        ({"prompt": "a", "chosen": "b"}, "column_missing", "rejected"),
        ({"prompt": "a", "completion": "b"}, "column_missing", "chosen"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "column_missing", "rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "answers_equal", None),
        ({"prompt": "a", "chosen": " \n", "rejected": "b"}, "answer_empty", "chosen"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "answer_empty", "rejected"),
        ({"prompt": "a", "chosen": 7, "rejected": "b"}, "column_type", "chosen"),
        ({"prompt": "a", "chosen": [], "rejected": "b"}, "column_type", "chosen"),
        ({"prompt": "a", "chosen": [GOOD], "rejected": [BAD]}, "row_mixed", "prompt"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [BAD]}, "answer_role", "chosen"),
        ({"prompt": [{"role": "robot"}], "chosen": [GOOD], "rejected": [BAD]}, "message_malformed", None),
        ({"chosen": "b", "rejected": "c"}, "prompt_missing", "chosen"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "prompt_missing", None),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "answer_empty", "rejected"),
        ({"prompt": "a", "chosen": "\ud800", "rejected": "b"}, "row_not_utf8", "chosen"),
        ([1], "row_not_object", None),
        (None, "row_not_object", None),
    ],
)  # fmt: skip
def test_a_bad_row_names_its_code_and_column(value: Any, code: str, field: str | None) -> None:
    with pytest.raises(RowError) as error:
        parse(value)
    assert error.value.code == code
    if field:
        assert error.value.field == field


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "row_not_json"),
        (b"\xff\xfe", "row_not_utf8"),
        (b"[" * 100_000, "row_not_json"),
        (b"NaN", "row_not_object"),
        (b'{"prompt": ' + b"9" * 10_000 + b"}", "row_not_json"),
    ],
)
def test_a_line_that_is_no_json_object(line: bytes, code: str) -> None:
    with pytest.raises(RowError) as error:
        parse_row(line, 1, DataShape.PAIRS)
    assert error.value.code == code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "role", "content", "messages"]), inner)
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from(DataShape))
def test_any_json_value_is_a_row_or_a_row_error(value: Any, shape: DataShape) -> None:
    try:
        row = parse(value, shape)
    except RowError:
        return
    assert row.answers[0] != row.answers[1]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_row_or_a_row_error(line: bytes) -> None:
    with contextlib.suppress(RowError):
        assert isinstance(parse_row(line, 2, DataShape.PAIRS), Row)


def test_the_real_hh_file_is_read_as_it_is_with_its_empty_answers_named() -> None:
    rows = list(read_rows(HH, DataShape.PAIRS))
    problems = [row for row in rows if isinstance(row, RowProblem)]
    assert len(rows) == 2312
    assert [(p.row, p.code) for p in problems] == [(line, "answer_empty") for line in (87, 517, 926, 1104)]
    assert all(
        isinstance(row.prompt, list) and row.prompt[-1]["role"] == "user" for row in rows if isinstance(row, Row)
    )


def test_line_numbers_count_blank_lines_and_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "chosen": "b", "rejected": "c"}\n\n{"prompt": 1}\n')
    first, second = read_rows(path, DataShape.PAIRS)
    assert isinstance(first, Row)
    assert isinstance(second, RowProblem)
    assert second.row == 3


def test_a_gzip_file_of_endless_blank_lines_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb") as out:
        for _ in range(80):
            out.write(b" " * (2**20 - 1) + b"\n")
    (problem,) = read_rows(path, DataShape.PAIRS)
    assert isinstance(problem, RowProblem)
    assert problem.fatal
    assert problem.code == "gzip_bomb"


def test_a_gzip_file_that_is_cut_off_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 1000)
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    last = list(read_rows(path, DataShape.PAIRS))[-1]
    assert isinstance(last, RowProblem)
    assert (last.code, last.fatal) == ("gzip_damaged", True)
