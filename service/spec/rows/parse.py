"""One value of a file to the row that it is: the format's own reading, then what all formats have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.spec.rows import llama_factory, preference, ranked, single
from service.spec.rows.columns import refuse_media, template_kwargs, tools, weight_and_margin
from service.spec.rows.formats import COMMON_COLUMNS, SCORE_COLUMNS, RowFormat, ScoreUse, detect
from service.spec.rows.messages import kind
from service.spec.rows.openai import openai
from service.spec.rows.row import Dialogue, Row, RowError, Text
from service.spec.rows.shaping import RowNeeds, shape_row

_READERS: dict[RowFormat, Callable[[dict[str, Any]], Dialogue]] = {
    RowFormat.EXPLICIT: preference.explicit,
    RowFormat.IMPLICIT: preference.implicit,
    RowFormat.ULTRAFEEDBACK: preference.ultrafeedback,
    RowFormat.HH: preference.hh,
    RowFormat.OPENAI: openai,
    RowFormat.SHAREGPT: llama_factory.sharegpt,
    RowFormat.ALPACA: llama_factory.alpaca,
    RowFormat.RANKED: ranked.ranked,
    RowFormat.SCORED: ranked.scored,
    RowFormat.UNPAIRED: single.unpaired,
    RowFormat.COMPLETION: single.completion,
    RowFormat.MESSAGES: single.whole,
}


@dataclass(frozen=True)
class ReadAs:
    """How a file is read: its format, and whether its prompts are messages ("conversational") or strings.

    conversational: None if no row was usable among those that decide.
    """

    format: RowFormat
    conversational: bool | None
    by_hand: bool = False

    def describe(self) -> str:
        """In words, such as "conversational, implicit prompt"."""
        kinds = {True: "conversational, ", False: "standard, ", None: ""}
        return kinds[self.conversational] + self.format.words


def parse_value(value: Any, number: int, read_as: RowFormat, scores: ScoreUse = ScoreUse.IGNORE) -> Row:
    """The row that `value` is in the format `read_as` (any but `auto`); raises RowError if it is none."""
    refuse_media(as_object(value))
    dialogue = _READERS[read_as](value)
    _check_answers(dialogue)
    weight, margin = weight_and_margin(value, dialogue, scores)
    return Row(
        number,
        dialogue.prompt,
        dialogue.answers,
        dialogue.label,
        weight,
        margin,
        dialogue.tools or tools(value.get("tools"), "tools"),
        template_kwargs(value.get("chat_template_kwargs")),
    )


def rows_of(value: Any, number: int, read_as: ReadAs, needs: RowNeeds) -> list[Row]:
    """The rows that one value of a file makes for a job: one, or two of a pair that is split.

    Raises RowError, also for a row of another format than the file's: rows of several kinds in one file are mostly a
    mistake in making it.
    """
    speaks_for = detect(as_object(value))
    if speaks_for is not None and speaks_for is not read_as.format and not read_as.by_hand:
        raise _mismatch(read_as, speaks_for.words)
    row = parse_value(value, number, read_as.format, needs.scores)
    conversational = not isinstance(row.prompt, str)
    if read_as.conversational not in (None, conversational):
        raise _mismatch(read_as, "messages" if conversational else "strings")
    return list(shape_row(row, needs))


def used_columns(read_as: RowFormat, scores: ScoreUse) -> frozenset[str]:
    """The columns that are read; all others of the file are ignored, and reported as such."""
    used = read_as.columns | COMMON_COLUMNS
    return used if scores is ScoreUse.IGNORE else used | SCORE_COLUMNS


def as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowError("row_not_object", f"a row must be a JSON object, this is {kind(value)}")
    return value


def _mismatch(read_as: ReadAs, found: str) -> RowError:
    return RowError(
        "format_mismatch",
        f"the file is read as '{read_as.describe()}', but this row has {found}; give a file one format, or set "
        "data.format",
    )


def _check_answers(dialogue: Dialogue) -> None:
    names = ("chosen", "rejected") if len(dialogue.answers) == 2 else ("completion",)
    for i, answer in enumerate(dialogue.answers):
        if _blank(answer):
            raise RowError("answer_empty", "the answer is empty", names[i] if i < len(names) else None)
    if len(dialogue.answers) == 2 and dialogue.answers[0] == dialogue.answers[1]:
        raise RowError("answers_equal", "chosen and rejected are equal: there is no preference to learn")


def _blank(answer: Text) -> bool:
    if isinstance(answer, str):
        return not answer.strip()
    said = (one["content"].strip() or one.get("tool_calls") for one in answer if one["role"] == "assistant")
    return not any(said)
