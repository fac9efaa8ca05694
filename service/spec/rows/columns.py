"""Columns that rows of any format may have: tools, chat_template_kwargs, weight, margin and scores."""

import math
from typing import Any

from service.spec.rows.formats import ScoreUse
from service.spec.rows.messages import from_json, kind, plain
from service.spec.rows.row import Dialogue, RowError

# What the tokenizer's own call sets; a row that set it too would change what is trained, or break the call.
_RESERVED = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")


def refuse_media(value: dict[str, Any]) -> None:
    """Raises RowError for a row with pictures or sound: without them its text would mean something else."""
    for name in _MEDIA:
        if value.get(name):
            raise RowError("media_unsupported", f"the row has '{name}', and only text is learned from", name)


def tools(value: Any, where: str) -> list[dict[str, Any]] | None:
    """JSON schemas of functions: a list of objects, or the JSON string of one. None and an empty list are none."""
    if isinstance(value, str):
        value = from_json(value, where) if value.strip() else None
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError("column_type", f"'{where}' must be a list of objects, or JSON that spells one", where)
    checked: list[dict[str, Any]] = plain(value, where)
    return checked


def template_kwargs(value: Any) -> dict[str, Any] | None:
    """Variables for the chat template, such as {"enable_thinking": false}: an object, or the JSON string of one."""
    name = "chat_template_kwargs"
    if isinstance(value, str):
        value = from_json(value, name)
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise RowError("column_type", f"'{name}' must be an object, or JSON that spells one", name)
    if taken := sorted(set(value) & _RESERVED):
        raise RowError("template_kwargs_reserved", f"{', '.join(taken)} cannot be set by a row", name)
    checked: dict[str, Any] = plain(value, name)
    return checked


def number(value: Any, where: str) -> float:
    """A finite number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError("column_type", f"'{where}' must be a number, this is {kind(value)}", where)
    try:
        found = float(value)
    except OverflowError:  # an integer of hundreds of digits
        found = math.inf
    if not math.isfinite(found):
        raise RowError("number_not_finite", f"'{where}' must be a finite number", where)
    return found


def label(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise RowError("column_type", f"'{where}' must be true or false, this is {kind(value)}", where)
    return value


def weight_and_margin(value: dict[str, Any], dialogue: Dialogue, use: ScoreUse) -> tuple[float, float]:
    """From the row's own columns, or from the difference of its two scores. 1 and 0 where there is nothing."""
    weight = 1.0 if value.get("weight") is None else number(value["weight"], "weight")
    margin = 0.0 if value.get("margin") is None else number(value["margin"], "margin")
    if use is not ScoreUse.IGNORE:
        if value.get(use.value) is not None:
            raise RowError(f"{use}_twice", f"the row has a {use} and scores that data.scores makes another of", use)
        difference = _difference(value, dialogue)
        if use is ScoreUse.WEIGHT:
            weight = abs(difference)
        elif difference < 0:
            raise RowError(
                "scores_contradict",
                f"chosen scores lower than rejected (by {-difference:g}), so the margin would be negative",
                "score_chosen",
            )
        else:
            margin = difference
    if weight <= 0:
        raise RowError("weight_not_positive", f"the weight is {weight:g}; it must be greater than 0", "weight")
    return weight, margin


def _difference(value: dict[str, Any], dialogue: Dialogue) -> float:
    scores = dialogue.scores
    if scores is None:
        for name in ("score_chosen", "score_rejected"):
            if value.get(name) is None:
                raise RowError("score_missing", f"data.scores needs column '{name}', which is missing", name)
        scores = (number(value["score_chosen"], "score_chosen"), number(value["score_rejected"], "score_rejected"))
    if len(dialogue.answers) != 2 or len(scores) != 2:
        raise RowError(
            "scores_unclear",
            f"data.scores takes the difference of two scores; this row has {len(dialogue.answers)} answers",
        )
    return number(scores[0] - scores[1], "score_chosen")  # two huge ones may be infinitely far apart
