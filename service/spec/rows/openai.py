"""OpenAI's JSON Lines for preference fine-tuning."""

from typing import Any

from service.spec.rows.columns import tools
from service.spec.rows.messages import messages, need
from service.spec.rows.preference import without_prompt
from service.spec.rows.row import Dialogue, RowError, Text

_INPUT = frozenset({"messages", "tools", "parallel_tool_calls"})  # the last steers sampling, there is none here


def openai(value: dict[str, Any]) -> Dialogue:
    """{input: {messages, tools?, parallel_tool_calls?}, preferred_output: [...], non_preferred_output: [...]}."""
    need(value, "input", "preferred_output", "non_preferred_output")
    given = value["input"]
    if not isinstance(given, dict) or given.get("messages") is None:
        raise RowError("column_type", "'input' must be an object with 'messages'", "input")
    if unknown := sorted(set(given) - _INPUT):
        raise RowError("column_type", f"unknown fields in 'input': {', '.join(map(repr, unknown))}"[:200], "input")
    if given.get("tools") is not None and value.get("tools") is not None:
        raise RowError("tools_twice", "the row has tools both in 'input' and in a column", "tools")
    prompt = messages(given["messages"], "input.messages")
    answers: dict[str, Text] = {
        name: messages(value[name], name) for name in ("preferred_output", "non_preferred_output")
    }
    return Dialogue(prompt, tuple(without_prompt(prompt, answers)), tools=tools(given.get("tools"), "input.tools"))
