"""Rows with k answers to one prompt, in order or with scores."""

import json
from itertools import pairwise
from typing import Any

from service.spec.rows.columns import number
from service.spec.rows.messages import kind, messages, need, string, text
from service.spec.rows.preference import without_prompt
from service.spec.rows.row import Dialogue, RowError, Text


def ranked(value: dict[str, Any]) -> Dialogue:
    """{prompt, ranked: [best, ..., worst], scores?}; scores, if there are any, must fall along the list."""
    need(value, "prompt", "ranked")
    prompt, answers = _answers(value, "ranked")
    scores = None if value.get("scores") is None else _scores(value, len(answers))
    if scores and any(better <= worse for better, worse in pairwise(scores)):
        raise RowError("scores_contradict", "'ranked' is best first, but its scores do not fall", "scores")
    return Dialogue(prompt, answers, scores=scores)


def scored(value: dict[str, Any]) -> Dialogue:
    """{prompt, answers: [...], scores: [...]}, sorted here; equal scores would leave the order to chance."""
    need(value, "prompt", "answers", "scores")
    prompt, answers = _answers(value, "answers")
    scores = _scores(value, len(answers))
    if len(set(scores)) < len(scores):
        raise RowError("scores_tied", "two answers have the same score: there is no order to learn", "scores")
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return Dialogue(prompt, tuple(answers[i] for i in order), scores=tuple(scores[i] for i in order))


def _answers(value: dict[str, Any], name: str) -> tuple[Text, tuple[Text, ...]]:
    found = value[name]
    if not isinstance(found, list):
        raise RowError("column_type", f"'{name}' must be a list of answers, this is {kind(found)}", name)
    if len(found) < 2:
        raise RowError("answers_too_few", f"'{name}' has {len(found)} answers; a ranking has at least two", name)
    prompt = text(value, "prompt")
    if isinstance(prompt, str):
        if not all(isinstance(answer, str) for answer in found):
            raise RowError("row_mixed", "prompt and answers must all be strings or all be lists of messages", name)
        strings = tuple(string(answer, f"{name}[{i}]") for i, answer in enumerate(found))
        _refuse_equal(strings, name)
        return prompt, strings
    named: dict[str, Text] = {f"{name}[{i}]": messages(answer, f"{name}[{i}]") for i, answer in enumerate(found)}
    cut = tuple(without_prompt(prompt, named))
    _refuse_equal(cut, name)
    return prompt, cut


def _refuse_equal(answers: tuple[Text, ...], name: str) -> None:
    if len({json.dumps(answer, sort_keys=True) for answer in answers}) < len(answers):
        raise RowError("answers_equal", "two answers are equal: there is no preference to learn between them", name)


def _scores(value: dict[str, Any], count: int) -> tuple[float, ...]:
    scores = value["scores"]
    if not isinstance(scores, list) or len(scores) != count:
        raise RowError("column_type", f"'scores' must be a list of {count} numbers, one per answer", "scores")
    return tuple(number(score, f"scores[{i}]") for i, score in enumerate(scores))
