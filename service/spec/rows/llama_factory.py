"""ShareGPT and Alpaca rows, as LLaMA-Factory's data/README.md documents them: ranked, with a KTO tag, or plain."""

from dataclasses import replace
from typing import Any

from service.spec.rows.columns import label, tools
from service.spec.rows.messages import called, from_json, need, string
from service.spec.rows.row import Dialogue, Message, RowError, Text
from service.spec.rows.single import last_answer

_ROLES = {
    "system": "system",
    "human": "user",
    "gpt": "assistant",
    "function_call": "assistant",
    "observation": "tool",
}


def sharegpt(value: dict[str, Any]) -> Dialogue:
    """{conversations: [{from, value}], system?} with {chosen, rejected: {from, value}}, with kto_tag, or alone.

    Without chosen and rejected, the last turn of the conversation is the answer.
    """
    need(value, "conversations")
    turns = value["conversations"]
    if not isinstance(turns, list) or not turns:
        raise RowError("column_type", "'conversations' must be a non-empty list of {from, value}", "conversations")
    dialogue = [_turn(turn, f"conversations[{i}]") for i, turn in enumerate(turns)]
    if dialogue[0]["role"] != "system":  # a system turn takes the column's place
        dialogue = _system(value) + dialogue
    found = _sharegpt_answers(value, dialogue)
    return replace(found, tools=_wrapped(tools(value.get("tools"), "tools")))


def _sharegpt_answers(value: dict[str, Any], dialogue: list[Message]) -> Dialogue:
    if _ranked(value):
        if dialogue[-1]["role"] == "assistant":
            raise RowError(
                "prompt_mismatch",
                "beside chosen and rejected, conversations end with human or observation",
                "conversations",
            )
        return Dialogue(dialogue, (_answer(value, "chosen"), _answer(value, "rejected")))
    return _tagged(value, last_answer(dialogue, "conversations"))


def alpaca(value: dict[str, Any]) -> Dialogue:
    """{instruction, input?, system?, history?: [[question, answer]]} with {chosen, rejected} or {output}, kto_tag."""
    need(value, "instruction")
    question = string(value["instruction"], "instruction")
    if value.get("input") not in (None, ""):
        question = "\n".join(part for part in (question, string(value["input"], "input")) if part)
    dialogue = _system(value)
    for i, turn in enumerate(_history(value)):
        where = f"history[{i}]"
        if not isinstance(turn, list) or len(turn) != 2:
            raise RowError("column_type", "'history' must be a list of [question, answer]", where)
        dialogue += [_said("user", turn[0], where), _said("assistant", turn[1], where)]
    dialogue.append({"role": "user", "content": question})
    names = ("chosen", "rejected") if _ranked(value) else ("output",)
    need(value, *names)
    answers: tuple[Text, ...] = tuple([_said("assistant", value[name], name)] for name in names)
    found = Dialogue(dialogue, answers)
    return found if len(answers) > 1 else _tagged(value, found)


def _ranked(value: dict[str, Any]) -> bool:
    if value.get("chosen") is None and value.get("rejected") is None:
        return False
    need(value, "chosen", "rejected")
    return True


def _tagged(value: dict[str, Any], found: Dialogue) -> Dialogue:
    if value.get("kto_tag") is None:
        return found
    return Dialogue(found.prompt, found.answers, label(value["kto_tag"], "kto_tag"))


def _answer(value: dict[str, Any], name: str) -> list[Message]:
    turn = _turn(value[name], name)
    if turn["role"] != "assistant":
        raise RowError("answer_role", f"'{name}' must be from gpt or function_call", name)
    return [turn]


def _turn(value: Any, where: str) -> Message:
    sender = value.get("from") if isinstance(value, dict) else None
    if not isinstance(sender, str) or sender not in _ROLES or set(value) - {"from", "value"}:
        raise RowError("message_malformed", f"a turn is {{from: {'|'.join(_ROLES)}, value: string}}", where)
    said = _said(_ROLES[sender], value.get("value"), where)
    if sender == "function_call":
        calls = from_json(said["content"], where)
        calls = calls if isinstance(calls, list) else [calls]
        if not calls or not all(isinstance(call, dict) for call in calls):
            raise RowError("message_malformed", "a function_call is JSON: {name, arguments}, or a list of them", where)
        functions = [{"type": "function", "function": called(call, where)} for call in calls]
        said |= {"content": "", "tool_calls": functions}
    return said


def _system(value: dict[str, Any]) -> list[Message]:
    return [] if value.get("system") in (None, "") else [_said("system", value["system"], "system")]


def _wrapped(given: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Tools as chat templates have them; here they are mostly the bare {name, description, parameters}."""
    if given is None:
        return None
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in given]


def _history(value: dict[str, Any]) -> list[Any]:
    history = value.get("history")
    if not isinstance(history, list | None):
        raise RowError("column_type", "'history' must be a list of [question, answer]", "history")
    return history or []


def _said(role: str, content: Any, where: str) -> Message:
    return {"role": role, "content": string(content, where)}
