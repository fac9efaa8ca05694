"""Rows with one answer: with a label (unpaired), without one, or as a whole dialogue."""

from typing import Any

from service.spec.rows.columns import label
from service.spec.rows.messages import messages, need, text
from service.spec.rows.preference import check_answer, without_prompt
from service.spec.rows.row import Dialogue, Message, RowError


def completion(value: dict[str, Any]) -> Dialogue:
    """{prompt, completion}: both strings, or both messages."""
    need(value, "prompt", "completion")
    prompt, answer = text(value, "prompt"), text(value, "completion")
    if isinstance(prompt, str) != isinstance(answer, str):
        raise RowError("row_mixed", "prompt and completion must both be strings or both be lists of messages")
    if not isinstance(prompt, str):
        (answer,) = without_prompt(prompt, {"completion": answer})
    return Dialogue(prompt, (answer,))


def unpaired(value: dict[str, Any]) -> Dialogue:
    """{prompt, completion, label}; the label says whether the completion is desirable."""
    need(value, "prompt", "completion", "label")
    dialogue = completion(value)
    return Dialogue(dialogue.prompt, dialogue.answers, label(value["label"], "label"))


def whole(value: dict[str, Any]) -> Dialogue:
    """{messages}: the last assistant message is the answer, all before it the prompt."""
    need(value, "messages")
    return last_answer(messages(value["messages"], "messages"), "messages")


def last_answer(dialogue: list[Message], name: str) -> Dialogue:
    check_answer(dialogue[-1:], name)
    if len(dialogue) < 2:
        raise RowError("prompt_missing", "the dialogue is an answer without a question", name)
    return Dialogue(dialogue[:-1], (dialogue[-1:],))
