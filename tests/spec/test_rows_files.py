"""The same rows out of every file, plain or compressed; and files that are damaged, cut off or far too large."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from service.spec.rows import Row, RowFormat, RowNeeds, RowProblem, read_rows
from service.spec.shapes import DataShape
from tests.spec.test_rows import BAD, GOOD, PAIR, PAIRS, TOOLS, USER

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}
DIALOGUE = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD], "tools": TOOLS, "weight": 2.5, "id": 7}


def as_jsonl(values: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def as_json(values: list[dict[str, Any]]) -> bytes:
    return json.dumps(values, indent=1).encode()


def as_csv(values: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(values[0]))
    writer.writeheader()
    for value in values:
        writer.writerow({k: v if isinstance(v, str | float | int) else json.dumps(v) for k, v in value.items()})
    return out.getvalue().encode()


def as_parquet(values: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values), out)
    return out.getvalue()


WRITERS = {"jsonl": as_jsonl, "json": as_json, "csv": as_csv, "parquet": as_parquet}


def read(path: Path, content: bytes, needs: RowNeeds = PAIRS) -> list[Row | RowProblem]:
    path.write_bytes(content)
    return list(read_rows(path, needs))


def fatal(path: Path, content: bytes) -> RowProblem:
    last = read(path, content)[-1]
    assert isinstance(last, RowProblem)
    assert last.fatal
    return last


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", WRITERS)
def test_every_file_holds_the_same_rows_whatever_its_name(tmp_path: Path, kind: str, compression: str) -> None:
    content = COMPRESSIONS[compression](WRITERS[kind]([DIALOGUE] * 300))
    rows = read(tmp_path / "rows.txt", content)
    assert rows == [Row(i, [USER], ([GOOD], [BAD]), weight=2.5, tools=TOOLS) for i in range(1, 301)]


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "plain"])
def test_a_compressed_file_that_is_cut_off_is_fatal(tmp_path: Path, compression: str) -> None:
    lines = as_jsonl([PAIR | {"prompt": f"Question {i * 7919 % 1000}"} for i in range(5000)])
    whole = COMPRESSIONS[compression](lines)
    assert fatal(tmp_path / "rows", whole[: len(whole) // 2]).code == "compression_damaged"


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "plain"])
def test_a_compressed_file_with_a_damaged_middle_is_fatal(tmp_path: Path, compression: str) -> None:
    whole = bytearray(COMPRESSIONS[compression](as_jsonl([PAIR | {"prompt": f"Q {i}"} for i in range(5000)])))
    middle = len(whole) // 2
    whole[middle : middle + 64] = bytes(64)
    assert fatal(tmp_path / "rows", bytes(whole)).code == "compression_damaged"


SEVERAL = [as_jsonl([PAIR | {"prompt": f"Q {i} of {part}"} for i in range(2000)]) for part in range(3)]


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "plain"])
def test_the_rows_of_all_streams_of_a_file_are_read(tmp_path: Path, compression: str) -> None:
    rows = read(tmp_path / "rows", b"".join(COMPRESSIONS[compression](part) for part in SEVERAL))
    assert [row.number for row in rows if isinstance(row, Row)] == list(range(1, 6001))


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "plain"])
@pytest.mark.parametrize("damage", ["magic", "zeros", "text"])
def test_a_file_whose_second_stream_is_damaged_is_fatal(tmp_path: Path, compression: str, damage: str) -> None:
    first, second, third = (bytearray(COMPRESSIONS[compression](part)) for part in SEVERAL)
    match damage:
        case "magic":
            second[2] ^= 1
        case "zeros":
            second[:16] = bytes(16)
        case "text":
            second = bytearray(SEVERAL[1])
    assert fatal(tmp_path / "rows", bytes(first + second + third)).code == "compression_damaged"


@pytest.mark.parametrize(("padding", "rows"), [(8, 4000), (2**17, 4000), (3, None)])
def test_xz_streams_may_be_padded_with_zeros_by_fours(tmp_path: Path, padding: int, rows: int | None) -> None:
    streams = [lzma.compress(part) + bytes(padding) for part in SEVERAL[:2]]
    found = read(tmp_path / "rows", b"".join(streams))
    last = found[-1]
    assert (len(found) if isinstance(last, Row) else None) == rows
    assert isinstance(last, Row) or last.code == "compression_damaged"


def test_a_later_xz_stream_that_asks_for_gigabytes_is_refused_too(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]
    content = lzma.compress(SEVERAL[0]) + lzma.compress(SEVERAL[1], filters=filters)
    assert fatal(tmp_path / "rows", content).code == "compression_damaged"


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "plain"])
def test_a_small_file_of_endless_blank_lines_is_given_up(tmp_path: Path, compression: str) -> None:
    bomb = COMPRESSIONS[compression]((b" " * (2**20 - 1) + b"\n") * 80)
    (problem,) = read(tmp_path / "rows", bomb)
    assert isinstance(problem, RowProblem)
    assert (problem.code, problem.fatal) == ("compression_bomb", True)


def test_an_xz_file_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]
    content = lzma.compress(as_jsonl([PAIR]), filters=filters)
    assert fatal(tmp_path / "rows", content).code == "compression_damaged"


@pytest.mark.parametrize(
    ("content", "row", "code"),
    [
        (b"[", 1, "row_not_json"),
        (b"[}", 1, "row_not_json"),
        (b"[" * 100_000, 1, "row_not_json"),
        (b'[{"prompt": "a"}, {', 2, "row_not_json"),
        (b'[{"prompt": "a"} {"prompt": "a"}]', 2, "row_not_json"),
        (b'[{"prompt": "a"}] x', 2, "row_not_json"),
        (b"[1,]", 2, "row_not_json"),
        (b"PAR1 but no more", 1, "parquet_damaged"),
        (b'prompt,chosen,rejected\na,b,"c\n', 1, "csv_damaged"),
        (b"prompt,chosen,prompt\na,b,c\n", 1, "header_repeated"),
        (b'{"prompt": "' + b"x" * 9_000_000, 1, "row_too_long"),
        (b'[{"prompt": "' + b"x" * 9_000_000 + b'"}]', 1, "row_too_long"),
        (b'prompt,chosen\n"' + b"x" * 9_000_000, 1, "row_too_long"),
        (b"prompt,chosen\na,b\n" + b"," * 9_000_000, 2, "row_too_long"),
        (b"prompt,chosen\n" + b'"\n",' * 2_200_000, 1, "row_too_long"),
        (b"PK\x03\x04" + bytes(26), 1, "archive"),
        (b"7z\xbc\xaf\x27\x1c\0\4", 1, "archive"),
        (gzip.compress(b"rows.jsonl".ljust(257, b"\0") + b"ustar\0" + bytes(249), mtime=0), 1, "archive"),
    ],
)
def test_a_file_that_breaks_off_says_at_which_row(tmp_path: Path, content: bytes, row: int, code: str) -> None:
    problem = fatal(tmp_path / "rows", content)
    assert (problem.row, problem.code) == (row, code)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"[]", b" [ ] ", b"\xef\xbb\xbf[]", b"prompt,chosen,rejected\n"])
def test_a_file_without_rows_has_none(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path / "rows", content) == []


def test_line_numbers_count_blank_lines_and_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + as_jsonl([PAIR]) + b'\n{"prompt": 1}\n'
    first, second = read(tmp_path / "rows", content)
    assert isinstance(first, Row)
    assert isinstance(second, RowProblem)
    assert second.row == 3


def test_a_json_array_may_have_any_values_and_bad_ones_are_rows_too(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows", b'\xef\xbb\xbf[1, "x", null, [2], {"prompt":"a","chosen":"b","rejected":"c"},12]')
    codes = [row.code if isinstance(row, RowProblem) else "" for row in rows]
    assert codes == ["row_not_object"] * 4 + [""] + ["row_not_object"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_broken_utf8_spoils_its_row_and_no_other(tmp_path: Path, kind: str) -> None:
    content = WRITERS[kind]([PAIR, PAIR | {"prompt": "BROKEN"}, PAIR]).replace(b"BROKEN", b"\xff\xfe")
    first, second, third = read(tmp_path / "rows", content)
    assert isinstance(second, RowProblem)
    assert second.code == "row_not_utf8"
    assert isinstance(first, Row)
    assert isinstance(third, Row)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n \n"])
def test_json_lines_whose_text_names_columns_between_commas_are_no_csv(tmp_path: Path, start: bytes) -> None:
    pairs = [PAIR | {"prompt": f"Explain: SELECT id,{name},score FROM t"} for name in ("label", "weight", "input")]
    rows = read(tmp_path / "rows", start + as_jsonl(pairs))
    assert [row.prompt for row in rows if isinstance(row, Row)] == [pair["prompt"] for pair in pairs]


def test_csv_cells_spell_numbers_labels_and_messages_but_an_answer_may_be_json_itself(tmp_path: Path) -> None:
    content = b"prompt,completion,label,weight,id\n"
    content += b'"a\nb","[1, 2]",true,0.5,x\n"a","{""name"": ""x""}",FALSE,,y\na,b,maybe,1,z\na,b\n\na,b,true,much,z\n'
    rows = read(tmp_path / "rows", content, RowNeeds(DataShape.UNPAIRED))
    assert rows[:2] == [Row(1, "a\nb", ("[1, 2]",), True, weight=0.5), Row(2, "a", ('{"name": "x"}',), False)]
    assert [(p.row, p.code, p.field) for p in rows[2:] if isinstance(p, RowProblem)] == [
        (3, "column_type", "label"),
        (4, "row_ragged", None),
        (5, "column_type", "weight"),
    ]


def test_fields_that_parquet_fills_with_nulls_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"city": "Paris"}}}
    other = {"type": "function", "function": {"name": "g", "arguments": {"day": 3}}}
    asks = [{"role": "assistant", "content": None, "tool_calls": [call, other]}]
    (row,) = read(tmp_path / "rows", as_parquet([{"prompt": [USER], "chosen": asks, "rejected": [BAD]}]))
    assert isinstance(row, Row)
    assert row.answers[0] == [{"role": "assistant", "content": "", "tool_calls": [call, other]}]


def test_parquet_cells_that_are_no_json_are_row_problems(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows", as_parquet([PAIR | {"chosen": b"bytes"}, PAIR | {"chosen": b"more"}]))
    assert [row.code for row in rows if isinstance(row, RowProblem)] == ["column_type", "column_type"]


def test_parquet_of_which_most_is_one_repeated_cell_is_given_up(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["x" * 2**20] * 100, "chosen": ["b"] * 100, "rejected": ["c"] * 100})
    pq.write_table(table, tmp_path / "rows", compression="zstd", use_dictionary=False)
    (problem,) = read_rows(tmp_path / "rows", PAIRS)
    assert isinstance(problem, RowProblem)
    assert problem.code == "compression_bomb"


@pytest.mark.parametrize("stays_dictionary", [True, False])
def test_parquet_that_says_one_cell_again_and_again_is_given_up(tmp_path: Path, stays_dictionary: bool) -> None:
    cells: Any = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), ["x" * 2**18])
    cells = cells if stays_dictionary else cells.dictionary_decode()
    table = pa.table({"prompt": cells, "chosen": ["b"] * 400, "rejected": ["c"] * 400})
    pq.write_table(table, tmp_path / "rows", compression="zstd")
    assert (tmp_path / "rows").stat().st_size < 10_000
    last = RowProblem(0, "", "")
    for row in read_rows(tmp_path / "rows", PAIRS):
        last = row if isinstance(row, RowProblem) else last
    assert (last.code, last.row, last.fatal) == ("compression_bomb", 129, True)


def test_parquet_with_a_row_that_is_too_long_is_given_up_there_in_little_memory(tmp_path: Path) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 1, 1, 1], pa.int32()), ["a", "x" * 9_000_000])
    table = pa.table({"prompt": long, "chosen": ["b"] * 6, "rejected": ["c"] * 6})
    pq.write_table(table, tmp_path / "rows", compression="zstd", dictionary_pagesize_limit=2**30)
    first, second = read_rows(tmp_path / "rows", PAIRS)
    assert isinstance(first, Row)
    assert isinstance(second, RowProblem)
    assert (second.row, second.code, second.fatal) == (2, "row_too_long", True)


def test_parquet_of_endlessly_many_nulls_in_few_bytes_is_given_up(tmp_path: Path) -> None:
    count = 70 * 2**20
    table = pa.table({"prompt": pa.nulls(count, pa.int8())})
    pq.write_table(table, tmp_path / "rows", compression="zstd", row_group_size=count)
    (problem,) = read_rows(tmp_path / "rows", PAIRS)
    assert isinstance(problem, RowProblem)
    assert problem.code == "compression_bomb"


def test_a_directory_is_read_as_one_file_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "00001-b").write_bytes(as_parquet([PAIR, PAIR]))
    (tmp_path / "00000-a").write_bytes(as_parquet([PAIR | {"prompt": "first"}]))
    (tmp_path / "00002-c").write_bytes(b"PAR1")
    rows = list(read_rows(tmp_path, PAIRS))
    assert [row.number if isinstance(row, Row) else row.row for row in rows] == [1, 2, 3, 4]
    assert isinstance(rows[0], Row)
    assert rows[0].prompt == "first"


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows"
    values = [{"prompt": "a" * 2000, "chosen": "b" * 2000 + str(i), "rejected": "c" * 2000} for i in range(8000)]
    path.write_bytes(WRITERS[kind](values))
    del values
    next(iter(read_rows(path, PAIRS)))  # what is imported at first use
    tracemalloc.start()
    count = sum(isinstance(row, Row) for row in read_rows(path, PAIRS))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8000
    assert peak < 12 * 2**20  # of 48 MB


def test_a_csv_file_without_a_known_column_is_told_what_a_header_is(tmp_path: Path) -> None:
    first, second = read(tmp_path / "rows", b"question,good,bad\na,b,c\n")
    assert isinstance(first, RowProblem)
    assert isinstance(second, RowProblem)
    assert (first.code, second.code) == ("row_not_json", "row_not_json")
    assert "header of a CSV file" in first.message
    assert "header" not in second.message


def test_by_hand_the_format_holds_whatever_the_columns_say(tmp_path: Path) -> None:
    value = {"prompt": "unused", "chosen": [USER, GOOD], "rejected": [USER, BAD]}
    needs = RowNeeds(DataShape.PAIRS, format=RowFormat.IMPLICIT)
    assert read(tmp_path / "rows", as_jsonl([value]), needs) == [Row(1, [USER], ([GOOD], [BAD]))]
