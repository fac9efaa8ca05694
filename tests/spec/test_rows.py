"""What every row must be, whatever its format; and the ways in which one can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.spec.rows import Row, RowError, RowFormat, RowNeeds, RowProblem, parse_value, read_rows
from service.spec.rows.files import parse_line
from service.spec.rows.formats import detect
from service.spec.shapes import DataShape

HH = Path(__file__).parents[1] / "data" / "hh_rlhf_harmless_base_test.jsonl.gz"
PAIRS = RowNeeds(DataShape.PAIRS)
USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "Hello!"}
BAD = {"role": "assistant", "content": "What?"}
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


def parse(value: Any) -> Row:
    """As a file with this row alone would be read."""
    kind = detect(value)
    assert kind is not None
    return parse_value(value, 1, kind)


def refused(value: Any) -> RowError:
    with pytest.raises(RowError) as error:
        parse(value)
    return error.value


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        ({"prompt": "a", "chosen": "b"}, "column_missing", "rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "column_missing", "rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "answers_equal", None),
        ({"prompt": "a", "chosen": " \n", "rejected": "b"}, "answer_empty", "chosen"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "answer_empty", "rejected"),
        ({"prompt": "a", "chosen": 7, "rejected": "b"}, "column_type", "chosen"),
        ({"prompt": [USER], "chosen": [], "rejected": [BAD]}, "column_type", "chosen"),
        ({"prompt": "a", "chosen": [GOOD], "rejected": "b"}, "row_mixed", None),
        ({"prompt": [USER], "chosen": "b", "rejected": "c"}, "row_mixed", "prompt"),
        ({"prompt": [USER], "chosen": [USER], "rejected": [BAD]}, "prompt_repeated", None),
        ({"prompt": [{"role": "robot"}], "chosen": [GOOD], "rejected": [BAD]}, "message_malformed", "prompt[0]"),
        ({"prompt": [USER | {"mood": "good"}], "chosen": [GOOD], "rejected": [BAD]}, "message_malformed", "prompt[0]"),
        ({"chosen": "b", "rejected": "c"}, "prompt_missing", "chosen"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "prompt_missing", None),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "answer_empty", "rejected"),
        ({"prompt": "a", "chosen": "\ud800", "rejected": "b"}, "row_not_utf8", "chosen"),
        ({"messages": [GOOD]}, "prompt_missing", "messages"),
        ({"messages": [USER]}, "answer_role", "messages"),
        ({"prompt": "a", "completion": "b", "label": 1}, "column_type", "label"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "column_type", "label"),
    ],
)  # fmt: skip
def test_a_bad_row_names_its_code_and_column(value: Any, code: str, field: str | None) -> None:
    error = refused(value)
    assert error.code == code
    if field:
        assert error.field == field


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "row_not_json"),
        (b"\xff\xfe", "row_not_utf8"),
        (b"[" * 100_000, "row_not_json"),
        (b'{"prompt": ' + b"9" * 10_000 + b"}", "row_not_json"),
    ],
)
def test_a_line_that_is_no_json_value(line: bytes, code: str) -> None:
    with pytest.raises(RowError) as error:
        parse_line(line, 1)
    assert error.value.code == code


@pytest.mark.parametrize("value", [[1], None, float("nan"), "text", True])
def test_a_value_that_is_no_object_is_no_row(value: Any) -> None:
    with pytest.raises(RowError) as error:
        parse_value(value, 1, RowFormat.EXPLICIT)
    assert error.value.code == "row_not_object"


def test_the_developer_is_the_system() -> None:
    row = parse({"prompt": [{"role": "developer", "content": "Be brief."}, USER], "chosen": [GOOD], "rejected": [BAD]})
    assert row.prompt[0] == {"role": "system", "content": "Be brief."}


def test_a_list_of_text_parts_is_one_text_and_pictures_are_refused() -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]
    row = parse({"prompt": [{"role": "user", "content": parts}], "chosen": [GOOD], "rejected": [BAD]})
    assert row.prompt == [{"role": "user", "content": "What is this?"}]
    parts.append({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})  # type: ignore[dict-item]
    error = refused({"prompt": [{"role": "user", "content": parts}], "chosen": [GOOD], "rejected": [BAD]})
    assert (error.code, error.field) == ("message_malformed", "prompt[0]")


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}


def test_tool_calls_keep_their_names_and_get_their_arguments_as_an_object() -> None:
    asks = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "22 degrees"}
    row = parse({"prompt": [USER, asks, result], "chosen": [GOOD], "rejected": [BAD]})
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    assert row.prompt[1:] == [{"role": "assistant", "content": "", "tool_calls": [called]}, result]


@pytest.mark.parametrize(
    "asks",
    [
        {"role": "assistant", "content": None},
        {"role": "user", "content": "x", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": []},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "retrieval", "function": {"name": "f"}}]},
    ],
)
def test_a_call_that_is_none_is_refused(asks: dict[str, Any]) -> None:
    assert refused({"prompt": [USER, asks], "chosen": [GOOD], "rejected": [BAD]}).code == "message_malformed"


def test_an_answer_may_be_a_tool_call_alone() -> None:
    calls = {"role": "assistant", "tool_calls": [CALL]}
    assert parse({"prompt": [USER], "chosen": [calls], "rejected": [BAD]}).answers[0][0]["content"] == ""


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_an_assistant_may_have_thoughts_and_nobody_else(name: str) -> None:
    thinks = GOOD | {name: "Let me see."}
    assert parse({"prompt": [USER], "chosen": [thinks], "rejected": [BAD]}).answers[0] == [thinks]
    error = refused({"prompt": [USER | {name: "Hm."}], "chosen": [GOOD], "rejected": [BAD]})
    assert (error.code, error.field) == ("message_malformed", "prompt[0]")
    assert refused({"prompt": [USER], "chosen": [GOOD | {name: 3}], "rejected": [BAD]}).code == "column_type"


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("given", [TOOLS, json.dumps(TOOLS)])
def test_tools_are_a_list_or_its_json(given: Any) -> None:
    assert parse(PAIR | {"tools": given}).tools == TOOLS


@pytest.mark.parametrize("given", [{"enable_thinking": False}, '{"enable_thinking": false}'])
def test_template_variables_are_an_object_or_its_json(given: Any) -> None:
    assert parse(PAIR | {"chat_template_kwargs": given}).template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("tools", "no json", "column_not_json"),
        ("tools", {"type": "function"}, "column_type"),
        ("tools", [{"x": float("nan")}], "column_type"),
        ("tools", [{"x": "\udfff"}], "row_not_utf8"),
        ("chat_template_kwargs", [1], "column_type"),
        ("chat_template_kwargs", {"tokenize": True}, "template_kwargs_reserved"),
        ("weight", "1", "column_type"),
        ("weight", True, "column_type"),
        ("weight", 0, "weight_not_positive"),
        ("weight", -1.5, "weight_not_positive"),
        ("weight", float("inf"), "number_not_finite"),
        ("weight", 10**400, "number_not_finite"),
        ("margin", float("nan"), "number_not_finite"),
        ("margin", False, "column_type"),
    ],
)
def test_a_column_of_any_format_is_checked(column: str, value: Any, code: str) -> None:
    error = refused(PAIR | {column: value})
    assert (error.code, error.field) == (code, column)


def test_the_real_hh_file_is_read_as_it_is_with_its_empty_answers_named() -> None:
    reader = read_rows(HH, PAIRS)
    rows = list(reader)
    problems = [row for row in rows if isinstance(row, RowProblem)]
    assert reader.read_as is not None
    assert reader.read_as.describe() == "conversational, implicit prompt (HH text)"
    assert len(rows) == 2312
    assert [(p.row, p.code) for p in problems] == [(line, "answer_empty") for line in (87, 517, 926, 1104)]
    assert all(
        isinstance(row.prompt, list) and row.prompt[-1]["role"] == "user" for row in rows if isinstance(row, Row)
    )
