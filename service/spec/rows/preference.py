"""Rows with `chosen` and `rejected`, as TRL's datasets, UltraFeedback and HH-RLHF lay them out.

Where the prompt is not a column of its own it is what both dialogues start with, cut at a place where an answer can
start: before a message of the assistant, or between words. A prompt that the answers repeat is cut from them.
"""

import re
from typing import Any

from service.spec.rows.formats import HH_MARKS
from service.spec.rows.messages import need, text
from service.spec.rows.row import Dialogue, Message, RowError, Text

_HH_TURN = re.compile("|".join(HH_MARKS))
_FULL_STOPS = "。！？：；，、"  # of scripts that put no space between words


def explicit(value: dict[str, Any]) -> Dialogue:
    """{prompt, chosen, rejected}: all strings, or all messages. Answers that begin with the whole prompt lose it."""
    need(value, "prompt", "chosen", "rejected")
    chosen, rejected = _both(value)
    prompt = text(value, "prompt")
    if isinstance(prompt, str) != isinstance(chosen, str):
        raise RowError("row_mixed", "prompt and answers must all be strings or all be lists of messages", "prompt")
    if not isinstance(prompt, str):
        chosen, rejected = without_prompt(prompt, {"chosen": chosen, "rejected": rejected})
    elif prompt.startswith(HH_MARKS):  # of other strings an answer may well begin like its prompt
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            if isinstance(answer, str) and answer.startswith(prompt):
                raise RowError(
                    "prompt_repeated", f"'{name}' is a whole dialogue: leave the prompt column out of HH text", name
                )
    return Dialogue(prompt, (chosen, rejected))


def implicit(value: dict[str, Any]) -> Dialogue:
    """{chosen, rejected}: whole dialogues or whole texts."""
    chosen, rejected = _both(value)
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _split_strings(chosen, rejected)
    assert not isinstance(chosen, str)
    assert not isinstance(rejected, str)
    return split_messages(chosen, rejected)


def hh(value: dict[str, Any]) -> Dialogue:
    """{chosen, rejected} in the text format of HH-RLHF (arXiv 2204.05862)."""
    chosen, rejected = _both(value)
    return split_messages(_hh_messages(chosen, "chosen"), _hh_messages(rejected, "rejected"))


def ultrafeedback(value: dict[str, Any]) -> Dialogue:
    """{prompt, chosen, rejected}: the prompt a string that both dialogues have again as their first user turn."""
    need(value, "prompt", "chosen", "rejected")
    prompt, chosen, rejected = text(value, "prompt"), text(value, "chosen"), text(value, "rejected")
    if not isinstance(prompt, str) or isinstance(chosen, str) or isinstance(rejected, str):
        raise RowError("row_mixed", "prompt must be a string beside chosen and rejected as lists of messages")
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        first = next((one["content"] for one in messages if one["role"] != "system"), "")
        if messages[0]["role"] == "assistant" or first.strip() != prompt.strip():
            raise RowError(
                "prompt_mismatch",
                f"the first user turn of '{name}' is not the prompt; the prompt of answers without it must be a list "
                "of messages too",
                name,
            )
    return split_messages(chosen, rejected)


def without_prompt(prompt: list[Message], answers: dict[str, Text]) -> list[Text]:
    """The answers (by the names of their columns) without the prompt, if each of them begins with all of it.

    Raises RowError where only some do, and where an answer then starts with anything but the assistant.
    """
    repeats = [answer[: len(prompt)] == prompt for answer in answers.values()]
    if any(repeats) and not all(repeats):
        raise RowError("prompt_repeated", "some answers begin with the prompt and some do not")
    if all(repeats):
        answers = {name: answer[len(prompt) :] for name, answer in answers.items()}
    for name, answer in answers.items():
        check_answer(answer, name)
    return list(answers.values())


def check_answer(answer: Text, name: str) -> None:
    """Raises RowError unless the answer is a string, or messages from the assistant's first to the assistant's last."""
    if isinstance(answer, str):
        return
    if not answer:
        raise RowError("answer_empty", f"'{name}' ends where the prompt does: its answer is empty", name)
    if answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
        raise RowError(
            "answer_role",
            f"an answer starts and ends with an assistant message, this one is {answer[0]['role']} to "
            f"{answer[-1]['role']}; what comes before belongs into the prompt",
            name,
        )


def split_messages(chosen: list[Message], rejected: list[Message]) -> Dialogue:
    """Cut where the dialogues part, or at the assistant message before: a turn of the user cannot be an answer."""
    if chosen == rejected:
        raise RowError("answers_equal", "chosen and rejected are equal: there is no preference to learn")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0:
        raise RowError("prompt_missing", "chosen and rejected start with different messages and there is no prompt")
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if shared == len(dialogue):
            raise RowError("answer_empty", f"'{name}' ends where the prompt does: its answer is empty", name)
    while shared and not chosen[shared]["role"] == rejected[shared]["role"] == "assistant":
        shared -= 1
    if shared == 0:
        raise RowError("prompt_missing", "chosen and rejected part before the assistant has said anything")
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        check_answer(dialogue[shared:], name)
    return Dialogue(chosen[:shared], (chosen[shared:], rejected[shared:]))


def _split_strings(chosen: str, rejected: str) -> Dialogue:
    """Cut between words. The single space before a word goes with the word, as tokenizers have it."""
    if chosen == rejected:
        raise RowError("answers_equal", "chosen and rejected are equal: there is no preference to learn")
    limit = min(len(chosen), len(rejected))
    shared = next((i for i in range(limit) if chosen[i] != rejected[i]), limit)
    if shared == limit:
        name = "chosen" if len(chosen) == limit else "rejected"
        raise RowError("answer_empty", f"'{name}' ends where the prompt does: its answer is empty", name)
    if not (chosen[shared].isspace() and rejected[shared].isspace()):
        while shared and not (chosen[shared - 1].isspace() or chosen[shared - 1] in _FULL_STOPS):
            shared -= 1
    if shared and chosen[shared - 1] == " " and not chosen[shared - 2 : shared - 1].isspace():
        shared -= 1
    if not chosen[:shared].strip():
        raise RowError(
            "prompt_missing",
            "chosen and rejected are strings that do not start with the same words, and there is no prompt: add a "
            "'prompt' column, or start both with '\\n\\nHuman:'",
            "chosen",
        )
    return Dialogue(chosen[:shared], (chosen[shared:], rejected[shared:]))


def _hh_messages(dialogue: Text, name: str) -> list[Message]:
    if not isinstance(dialogue, str) or not dialogue.startswith(HH_MARKS):
        raise RowError("prompt_missing", f"'{name}' does not start with '\\n\\nHuman:'", name)
    roles = ["user" if mark.endswith("Human:") else "assistant" for mark in _HH_TURN.findall(dialogue)]
    turns = [turn.strip() for turn in _HH_TURN.split(dialogue)[1:]]
    return [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]


def _both(value: dict[str, Any]) -> tuple[Text, Text]:
    need(value, "chosen", "rejected")
    chosen, rejected = text(value, "chosen"), text(value, "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowError("row_mixed", "chosen and rejected must both be strings or both be lists of messages")
    return chosen, rejected
