"""Whatever a file holds, each value ends as a row or as a typed problem, in every format: nothing else is raised.

Random JSON alone would never get past the first check, so half of the values are near misses: a good row of the format
in which some places hold something else.
"""

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.spec.rows import ReadAs, Row, RowError, RowFormat, RowNeeds, RowProblem, ScoreUse, read_rows, rows_of
from service.spec.shapes import DataShape
from tests.spec.test_rows import BAD, CALL, GOOD, TOOLS, USER
from tests.spec.test_rows_files import COMPRESSIONS, WRITERS

EXTRAS = {"tools": TOOLS, "chat_template_kwargs": {"a": 1}, "weight": 2.0, "margin": 0.5}
SCORES = {"score_chosen": 2, "score_rejected": 1}
GPT = {"from": "gpt", "value": "a"}
GOOD_ROWS: dict[RowFormat, dict[str, Any]] = {
    RowFormat.EXPLICIT: {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD], **SCORES},
    RowFormat.IMPLICIT: {"chosen": "The sky is blue", "rejected": "The sky is black", **SCORES},
    RowFormat.ULTRAFEEDBACK: {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD], **SCORES},
    RowFormat.HH: {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c", **SCORES},
    RowFormat.OPENAI: {
        "input": {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]},
        "preferred_output": [GOOD],
        "non_preferred_output": [BAD],
    },
    RowFormat.SHAREGPT: {
        "conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "f"}'}, GPT],
        "system": "s",
        "kto_tag": True,
    },
    RowFormat.ALPACA: {
        "instruction": "a", "input": "b", "system": "c", "history": [["d", "e"]], "chosen": "f", "rejected": "g",
    },
    RowFormat.RANKED: {"prompt": [USER], "ranked": [[GOOD], [BAD]], "scores": [2, 1]},
    RowFormat.SCORED: {"prompt": "a", "answers": ["b", "c", "d"], "scores": [1, 3, 2]},
    RowFormat.UNPAIRED: {"prompt": [USER], "completion": [GOOD], "label": True},
    RowFormat.COMPLETION: {"prompt": "a", "completion": "b"},
    RowFormat.MESSAGES: {"messages": [USER, GOOD, USER, BAD]},
}  # fmt: skip
FORMATS = [kind for kind in RowFormat if kind is not RowFormat.AUTO]

texts = st.text(st.characters(categories=None), max_size=20)  # lone surrogates too
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 0, -0.0, 1e308])
    | st.floats()
    | texts
    | st.sampled_from(["", " ", "\n\nHuman:", "\n\nAssistant: x", "[", '{"a": NaN}', '"\\ud800"', "\0", "x" * 100_000])
)
keys = st.sampled_from(
    ["role", "content", "from", "value", "messages", "tool_calls", "function", "name", "arguments", "type", "text"]
)
json_values = st.recursive(
    scalars | st.sampled_from([USER, GOOD, CALL, GPT]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | texts, inner, max_size=4),
    max_leaves=10,
)


RELAXED = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in `value` with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@st.composite
def near_misses(draw: st.DrawFn, kind: RowFormat) -> Any:
    value = copy.deepcopy(GOOD_ROWS[kind] | EXTRAS)
    for _ in range(draw(st.integers(0, 3))):
        container, key = draw(st.sampled_from(list(places(value))))
        container[key] = copy.deepcopy(draw(json_values))
    return value


def check(row: Row) -> None:
    """What everything behind relies on."""
    json.dumps([row.prompt, row.answers, row.tools, row.template_kwargs], allow_nan=False, ensure_ascii=False).encode()
    kinds = {isinstance(text, str) for text in (row.prompt, *row.answers)}
    assert len(kinds) == 1
    assert len(row.answers) >= 1
    assert 0 < row.weight < float("inf")
    assert abs(row.margin) < float("inf")
    for text in (row.prompt, *row.answers):
        for message in [] if isinstance(text, str) else text:
            assert isinstance(message["content"], str)
            assert message["role"] in ("system", "user", "assistant", "tool")
    for answer in row.answers:
        assert isinstance(answer, str) or answer[0]["role"] == answer[-1]["role"] == "assistant"
    if len(row.answers) == 2:
        assert row.answers[0] != row.answers[1]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_row_that_is_varied_is_a_good_one(kind: RowFormat) -> None:
    row = GOOD_ROWS[kind] | EXTRAS
    shape = DataShape.PAIRS if "chosen" in row else DataShape.ANSWERS
    assert rows_of(row, 1, ReadAs(kind, None), RowNeeds(shape, True, True))


@pytest.mark.parametrize("kind", FORMATS)
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)
@given(st.data())
def test_a_near_miss_is_a_row_or_a_row_error(kind: RowFormat, data: st.DataObject) -> None:
    value = data.draw(near_misses(kind) | json_values)
    needs = RowNeeds(
        data.draw(st.sampled_from(DataShape)),
        uses_weight=data.draw(st.booleans()),
        uses_margin=data.draw(st.booleans()),
        scores=data.draw(st.sampled_from(ScoreUse)),
    )
    try:
        rows = rows_of(value, 1, ReadAs(kind, None, by_hand=data.draw(st.booleans())), needs)
    except RowError as error:
        str(error).encode()  # it will be sent as JSON
        return
    for row in rows:
        check(row)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("column", ["first", "tools", "chat_template_kwargs"])
def test_nesting_without_end_is_a_row_error(kind: RowFormat, column: str) -> None:
    deep: Any = "x"
    for _ in range(50_000):
        deep = [deep]
    value = GOOD_ROWS[kind] | EXTRAS
    name = next(iter(value)) if column == "first" else column
    try:
        with pytest.raises(RowError):
            rows_of(value | {name: deep}, 1, ReadAs(kind, None, True), RowNeeds(DataShape.PAIRS, True, True))
    finally:
        while isinstance(deep, list):  # or freeing it would recurse
            deep = deep.pop()


@RELAXED
@given(
    st.binary(max_size=300)
    | st.builds(
        lambda start, rest: start + rest,
        st.sampled_from([
            b"\x1f\x8b\x08",
            b"BZh9", b"\xfd7zXZ\x00\x00", b"\x28\xb5\x2f\xfd", b"PAR1", b"[", b"[{", b"prompt,chosen\n",
            b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n', b'\xef\xbb\xbf{"chosen": ',
        ]),
        st.binary(max_size=300),
    )
)  # fmt: skip
def test_any_bytes_are_rows_or_problems(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        for row in read_rows(Path(file.name), RowNeeds(DataShape.PAIRS)):
            assert isinstance(row, RowProblem | Row)


@given(st.lists(st.sampled_from(FORMATS).flatmap(near_misses), min_size=1, max_size=4), st.sampled_from(DataShape))
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
def test_a_file_of_near_misses_accounts_for_every_row(values: list[Any], shape: DataShape) -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("".join(json.dumps(value) + "\n" for value in values))
        file.flush()
        rows = list(read_rows(Path(file.name), RowNeeds(shape, True, True)))
    numbers = {row.number if isinstance(row, Row) else row.row for row in rows}
    assert numbers == set(range(1, len(values) + 1))


WHOLE_FILES = {
    f"{kind}-{compression}": compress(write([GOOD_ROWS[RowFormat.EXPLICIT] | EXTRAS] * 20))
    for kind, write in WRITERS.items()
    for compression, compress in COMPRESSIONS.items()
}


@pytest.mark.parametrize("name", WHOLE_FILES)
@RELAXED
@given(st.data())
def test_a_damaged_file_of_any_kind_is_rows_or_problems(name: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE_FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        content = content or bytearray(b" ")
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        for row in read_rows(Path(file.name), RowNeeds(DataShape.PAIRS, True, True)):
            assert isinstance(row, RowProblem | Row)
