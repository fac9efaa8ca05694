"""The formats that rows come in, and how a row's columns tell which one it is."""

from enum import StrEnum
from typing import Any


class RowFormat(StrEnum):
    AUTO = "auto"  # what the first usable row is
    EXPLICIT = "explicit"  # {prompt, chosen, rejected}, strings or messages
    IMPLICIT = "implicit"  # {chosen, rejected}; what both start with is the prompt
    ULTRAFEEDBACK = "ultrafeedback"  # {prompt: string, chosen, rejected}: whole dialogues that repeat the prompt
    HH = "hh"  # {chosen, rejected}: "\n\nHuman: ...\n\nAssistant: ..."
    OPENAI = "openai"  # {input: {messages, tools}, preferred_output, non_preferred_output}
    SHAREGPT = "sharegpt"  # {conversations: [{from, value}]}, with chosen and rejected, kto_tag, or neither
    ALPACA = "alpaca"  # {instruction, input}, with chosen and rejected, or with output
    RANKED = "ranked"  # {prompt, ranked: [best, ..., worst]}
    SCORED = "scored"  # {prompt, answers, scores}
    UNPAIRED = "unpaired"  # {prompt, completion, label}
    COMPLETION = "completion"  # {prompt, completion}
    MESSAGES = "messages"  # {messages}; the last assistant message is the answer

    @property
    def words(self) -> str:
        """What the data report calls it, after "standard" (strings) or "conversational" (messages)."""
        return _WORDS[self]

    @property
    def columns(self) -> frozenset[str]:
        """The columns it reads, beside those that every format may have."""
        return frozenset(_COLUMNS[self].split())


class ScoreUse(StrEnum):
    """What becomes of `score_chosen` and `score_rejected`, or of `scores`."""

    IGNORE = "ignore"
    WEIGHT = "weight"  # their absolute difference becomes the row's weight
    MARGIN = "margin"  # their difference becomes the row's margin


_WORDS = {
    RowFormat.EXPLICIT: "explicit prompt",
    RowFormat.IMPLICIT: "implicit prompt",
    RowFormat.ULTRAFEEDBACK: "prompt beside whole dialogues (UltraFeedback)",
    RowFormat.HH: "implicit prompt (HH text)",
    RowFormat.OPENAI: "OpenAI preference format",
    RowFormat.SHAREGPT: "ShareGPT",
    RowFormat.ALPACA: "Alpaca",
    RowFormat.RANKED: "ranked answers",
    RowFormat.SCORED: "answers with scores",
    RowFormat.UNPAIRED: "unpaired answers with labels",
    RowFormat.COMPLETION: "single answers",
    RowFormat.MESSAGES: "whole dialogues",
}

_COLUMNS = {
    RowFormat.EXPLICIT: "prompt chosen rejected",
    RowFormat.IMPLICIT: "chosen rejected",
    RowFormat.ULTRAFEEDBACK: "prompt chosen rejected",
    RowFormat.HH: "chosen rejected",
    RowFormat.OPENAI: "input preferred_output non_preferred_output",
    RowFormat.SHAREGPT: "conversations system chosen rejected kto_tag",
    RowFormat.ALPACA: "instruction input output system history chosen rejected kto_tag",
    RowFormat.RANKED: "prompt ranked scores",
    RowFormat.SCORED: "prompt answers scores",
    RowFormat.UNPAIRED: "prompt completion label",
    RowFormat.COMPLETION: "prompt completion",
    RowFormat.MESSAGES: "messages",
}
COMMON_COLUMNS = frozenset({"tools", "chat_template_kwargs", "weight", "margin"})
SCORE_COLUMNS = frozenset({"score_chosen", "score_rejected"})
ALL_COLUMNS = frozenset().union(*(kind.columns for kind in _COLUMNS), COMMON_COLUMNS, SCORE_COLUMNS)
HH_MARKS = ("\n\nHuman:", "\n\nAssistant:")

# From the columns that only one format has to those that several have: datasets carry more than they need.
_TELLING = (
    ("preferred_output", RowFormat.OPENAI),
    ("non_preferred_output", RowFormat.OPENAI),
    ("conversations", RowFormat.SHAREGPT),
    ("instruction", RowFormat.ALPACA),
    ("ranked", RowFormat.RANKED),
    ("answers", RowFormat.SCORED),
)


def detect(value: dict[str, Any]) -> RowFormat | None:
    """The format that one row's columns speak for; None if they speak for none. A null column counts as absent."""
    present = {name for name, cell in value.items() if cell is not None}
    for name, kind in _TELLING:
        if name in present:
            return kind
    if "chosen" in present or "rejected" in present:
        return _detect_pair(value)
    if "completion" in present:
        return RowFormat.UNPAIRED if "label" in present else RowFormat.COMPLETION
    return RowFormat.MESSAGES if "messages" in present else None


def _detect_pair(value: dict[str, Any]) -> RowFormat:
    chosen, rejected = value.get("chosen"), value.get("rejected")
    prompt = value.get("prompt")
    if prompt is None:
        hh = all(isinstance(text, str) and text.startswith(HH_MARKS) for text in (chosen, rejected))
        return RowFormat.HH if hh else RowFormat.IMPLICIT
    whole = isinstance(prompt, str) and (isinstance(chosen, list) or isinstance(rejected, list))
    return RowFormat.ULTRAFEEDBACK if whole else RowFormat.EXPLICIT
