"""Rows of a preference dataset: read from JSON Lines, checked, and brought to one shape.

Accepted rows, told apart by their columns alone:

- `{prompt, chosen, rejected}`  explicit prompt; each a string, or a list of `{role, content}` messages
- `{chosen, rejected}`          implicit prompt: whole dialogues, as message lists or as HH text
                                ("\\n\\nHuman: ...\\n\\nAssistant: ..."); what both start with is the prompt
- `{prompt, completion}`        an answer without a rival, for `sft`
- `{messages}`                  the same; the last assistant message is the answer

Every problem is a `RowProblem` with its line number; nothing is dropped in silence.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from service.spec.shapes import DataShape

Message = dict[str, str]
Text = str | list[Message]

ROLES = frozenset({"system", "user", "assistant", "tool"})
MAX_LINE_BYTES = 8 * 2**20
_MAX_RATIO = 200  # of decompressed to compressed; dialogues reach 20
_ALWAYS_ALLOWED = 64 * 2**20
_HH_TURN = re.compile(r"\n\nHuman:|\n\nAssistant:")


@dataclass(frozen=True)
class Row:
    """A prompt with its answers; strings throughout or messages throughout. Numbers count from 1.

    answers: the chosen and the rejected one of a pair; k of them, best first, of a ranking; or one.
    label: of an unpaired answer, whether it is desirable; else None.
    weight, margin: what the loss of this row is multiplied by, and the least reward margin that it asks for.
    """

    number: int
    prompt: Text
    answers: tuple[Text, ...]
    label: bool | None = None
    weight: float = 1.0
    margin: float = 0.0
    tools: list[dict[str, Any]] | None = None
    template_kwargs: dict[str, Any] | None = None


@dataclass(frozen=True)
class RowProblem:
    """Why a row cannot be used. `code` is stable; `field` is the column at fault, if one is."""

    row: int
    code: str
    message: str
    field: str | None = None
    fatal: bool = False  # the rest of the file cannot be read either, so leaving the row out would lose rows unseen


class RowError(ValueError):
    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


def read_rows(path: Path, shape: DataShape) -> Iterator[Row | RowProblem]:
    """Yield a `Row` or a `RowProblem` for each non-blank line; the memory used does not grow with the file.

    shape: what the job's losses learn from.
    """
    allowed = max(_MAX_RATIO * path.stat().st_size, _ALWAYS_ALLOWED)
    try:
        with open_lines(path) as lines:
            number = read = 0
            while line := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                read += len(line)
                if read > allowed:
                    yield RowProblem(
                        number, "gzip_bomb", f"the file holds {_MAX_RATIO} times more than its own size", fatal=True
                    )
                    return
                if len(line) > MAX_LINE_BYTES:
                    yield RowProblem(
                        number, "row_too_long", f"the line is longer than {MAX_LINE_BYTES} bytes", fatal=True
                    )
                    return
                if line.strip():
                    try:
                        yield parse_row(line, number, shape)
                    except RowError as error:
                        yield RowProblem(number, error.code, str(error), error.field)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        yield RowProblem(number + 1, "gzip_damaged", f"the gzip stream is damaged or cut off: {error}", fatal=True)


def open_lines(path: Path) -> BinaryIO | gzip.GzipFile:
    """The file's bytes, decompressed if it starts with gzip's magic number, whatever its name."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def parse_row(line: bytes, number: int, shape: DataShape) -> Row:
    """Bring one line to a `Row`, or raise `RowError`."""
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise RowError("row_not_utf8", f"not UTF-8 text at byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError too
        raise RowError("row_not_json", f"not a JSON value: {error}") from error
    if not isinstance(value, dict):
        raise RowError("row_not_object", f"a row must be a JSON object, this is {_kind(value)}")

    if "chosen" in value or "rejected" in value or shape is DataShape.PAIRS:
        row = _pair(value, number)
    else:
        row = _answer(value, number)
    if _blank(row.answers[0]):
        raise RowError("answer_empty", "the answer is empty", "chosen" if "chosen" in value else "completion")
    if len(row.answers) > 1:
        if _blank(row.answers[1]):
            raise RowError("answer_empty", "the answer is empty", "rejected")
        if row.answers[0] == row.answers[1]:
            raise RowError("answers_equal", "chosen and rejected are equal: there is no preference to learn")
    return row


def _pair(value: dict[str, Any], number: int) -> Row:
    for name in ("chosen", "rejected"):
        if value.get(name) is None:
            raise RowError(
                "column_missing", f"column '{name}' is missing; a pair has chosen, rejected and mostly prompt", name
            )
    chosen, rejected = _text(value, "chosen"), _text(value, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowError("row_mixed", "chosen and rejected must both be strings or both be lists of messages")
    if value.get("prompt") is None:
        return _implicit(chosen, rejected, number)
    prompt = _text(value, "prompt")
    if isinstance(prompt, str) != isinstance(chosen, str):
        raise RowError("row_mixed", "prompt and answers must all be strings or all be lists of messages", "prompt")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        _check_answer(answer, name)
    return Row(number, prompt, (chosen, rejected))


def _answer(value: dict[str, Any], number: int) -> Row:
    if value.get("messages") is not None:
        messages = _text(value, "messages")
        if isinstance(messages, str):
            raise RowError("column_type", "'messages' must be a list of messages", "messages")
        if len(messages) < 2:
            raise RowError("prompt_missing", "the dialogue is an answer without a question", "messages")
        _check_answer(messages[-1:], "messages")
        return Row(number, messages[:-1], (messages[-1:],))
    for name in ("prompt", "completion"):
        if value.get(name) is None:
            raise RowError("column_missing", f"column '{name}' is missing; a row has prompt and completion", name)
    prompt, completion = _text(value, "prompt"), _text(value, "completion")
    if isinstance(prompt, str) != isinstance(completion, str):
        raise RowError("row_mixed", "prompt and completion must both be strings or both be lists of messages")
    _check_answer(completion, "completion")
    return Row(number, prompt, (completion,))


def _implicit(chosen: Text, rejected: Text, number: int) -> Row:
    """Split whole dialogues into the messages both start with, and the rest."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = _hh_messages(chosen, "chosen"), _hh_messages(rejected, "rejected")
    assert not isinstance(chosen, str)
    assert not isinstance(rejected, str)
    if chosen == rejected:
        raise RowError("answers_equal", "chosen and rejected are equal: there is no preference to learn")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0:
        raise RowError("prompt_missing", "chosen and rejected start with different messages and there is no prompt")
    for name, answer in (("chosen", chosen[shared:]), ("rejected", rejected[shared:])):
        if not answer:
            raise RowError("answer_empty", f"{name} ends where the prompt does: its answer is empty", name)
        _check_answer(answer, name)
    return Row(number, chosen[:shared], (chosen[shared:], rejected[shared:]))


def _hh_messages(text: str, name: str) -> list[Message]:
    """Messages of a dialogue in the format of Anthropic's HH-RLHF."""
    if not text.startswith(("\n\nHuman:", "\n\nAssistant:")):
        raise RowError(
            "prompt_missing",
            f"'{name}' is a string without a prompt: add a 'prompt' column, or start it with '\\n\\nHuman:'",
            name,
        )
    roles = ["user" if mark.endswith("Human:") else "assistant" for mark in _HH_TURN.findall(text)]
    turns = [turn.strip() for turn in _HH_TURN.split(text)[1:]]
    return [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]


def _text(value: dict[str, Any], name: str) -> Text:
    text = value[name]
    if isinstance(text, str):
        _check_unicode(text, name)
        return text
    if not isinstance(text, list) or not text:
        raise RowError("column_type", f"'{name}' must be a string or a non-empty list of messages", name)
    return [_message(message, f"{name}[{i}]") for i, message in enumerate(text)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str) or value.get("role") not in ROLES:
        raise RowError("message_malformed", "a message is {role: system|user|assistant|tool, content: string}", where)
    if extra := sorted(set(value) - {"role", "content"}):
        raise RowError("message_malformed", f"unknown message fields: {', '.join(extra)}", where)
    _check_unicode(value["content"], where)
    return {"role": value["role"], "content": value["content"]}


def _check_unicode(text: str, where: str) -> None:
    """JSON can spell lone surrogates, which no tokenizer can encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError("row_not_utf8", f"a lone surrogate at character {error.start} is not text", where) from error


def _check_answer(answer: Text, name: str) -> None:
    if not isinstance(answer, str) and answer[-1]["role"] != "assistant":
        raise RowError("answer_role", "an answer must end with an assistant message", name)


def _blank(text: Text) -> bool:
    if isinstance(text, str):
        return not text.strip()
    return all(not message["content"].strip() for message in text if message["role"] == "assistant")


def _kind(value: Any) -> str:
    names = {"list": "a list", "str": "a string", "int": "a number", "float": "a number", "bool": "true or false"}
    return names.get(type(value).__name__, "null")
