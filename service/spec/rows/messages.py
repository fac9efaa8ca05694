"""Texts and messages of a row, checked: whatever comes out of here, a chat template and a tokenizer can take."""

import json
from typing import Any

from service.spec.rows.row import Message, RowError, Text

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # names that chat templates have for an answer's thoughts
_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", *THOUGHTS})


def need(value: dict[str, Any], *names: str) -> None:
    """Raises RowError for the first of the columns that is missing or null."""
    for name in names:
        if value.get(name) is None:
            raise RowError("column_missing", f"column '{name}' is missing; the format has {', '.join(names)}", name)


def text(value: dict[str, Any], name: str) -> Text:
    """Column `name` as a string or as messages; RowError if it is neither."""
    found = value[name]
    return string(found, name) if isinstance(found, str) else messages(found, name)


def string(value: Any, where: str) -> str:
    """Raises RowError for anything but a string that is text: JSON can spell lone surrogates, no tokenizer can."""
    if not isinstance(value, str):
        raise RowError("column_type", f"'{where}' must be a string, this is {kind(value)}", where)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError("row_not_utf8", f"a lone surrogate or broken UTF-8 at character {error.start}", where) from error
    return value


def messages(value: Any, where: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RowError("column_type", f"'{where}' must be a string or a non-empty list of messages", where)
    return [message(one, f"{where}[{i}]") for i, one in enumerate(value)]


def message(value: Any, where: str) -> Message:
    """One message in the fields that chat templates know; `developer` is what newer OpenAI models call `system`.

    A null content is allowed beside tool calls only, and becomes the empty string: templates join strings.
    """
    if not isinstance(value, dict):
        raise _malformed("a message is {role, content}", where)
    given = {name: cell for name, cell in value.items() if cell is not None}
    role = given.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _malformed(f"'role' must be one of {', '.join(_ROLES)}", where)
    if unknown := sorted(set(given) - _FIELDS):
        raise _malformed(f"unknown message fields: {', '.join(map(repr, unknown))}"[:200], where)
    made: Message = {"role": _ROLES[role], "content": ""}
    if "tool_calls" in given:
        if role != "assistant":
            raise _malformed("only an assistant calls tools", where)
        made["tool_calls"] = tool_calls(given["tool_calls"], where)
    if "content" in given:
        made["content"] = _content(given["content"], where)
    elif "tool_calls" not in given:
        raise _malformed("'content' is missing; only a message with tool_calls may leave it out", where)
    if role != "assistant" and any(name in given for name in THOUGHTS):
        raise _malformed("only an assistant has thoughts", where)
    for name in ("name", "tool_call_id", *THOUGHTS):
        if name in given:
            made[name] = string(given[name], f"{where}.{name}")
    return made


def _content(value: Any, where: str) -> str:
    if not isinstance(value, list):
        return string(value, f"{where}.content")
    parts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise _malformed("content parts other than {type: text, text: ...} cannot be learned from", where)
        parts.append(string(part.get("text"), f"{where}.content"))
    return "".join(parts)


def tool_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Calls as {id?, type: function, function: {name, arguments}} with the arguments as an object.

    OpenAI spells the arguments as a JSON string, which the templates of most models would quote a second time.
    """
    if not isinstance(value, list) or not value:
        raise _malformed("'tool_calls' must be a non-empty list", where)
    return [_tool_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(value)]


def _tool_call(value: Any, where: str) -> dict[str, Any]:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or value.get("type", "function") != "function":
        raise _malformed("a tool call is {type: function, function: {name, arguments}}", where)
    made: dict[str, Any] = {"type": "function", "function": called(function, where)}
    return made if value.get("id") is None else {"id": string(value["id"], f"{where}.id"), **made}


def called(function: dict[str, Any], where: str) -> dict[str, Any]:
    """{name, arguments} of one call; arguments that are missing are none."""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = from_json(arguments, f"{where}.arguments")
    if not isinstance(arguments, dict | None):
        raise _malformed("a call's arguments must be an object, or JSON that spells one", where)
    arguments = plain({} if arguments is None else arguments, f"{where}.arguments")
    return {"name": string(function.get("name"), f"{where}.name"), "arguments": arguments}


def from_json(value: str, where: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError("column_not_json", f"'{where}' holds a string that is not JSON: {error}"[:300], where) from error


def plain(value: Any, where: str) -> Any:
    """`value`, if it is plain JSON of real text and finite numbers; RowError otherwise."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise RowError("row_not_utf8", f"a lone surrogate or broken UTF-8 in '{where}'", where) from error
    except (TypeError, ValueError, RecursionError) as error:  # bytes or dates from Parquet, NaN, nesting
        raise RowError("column_type", f"'{where}' is not plain JSON: {error}"[:300], where) from error
    return value


def kind(value: Any) -> str:
    """What a value is, in words that a person who writes JSON would use."""
    names = {"list": "a list", "str": "a string", "int": "a number", "float": "a number", "bool": "true or false"}
    names |= {"dict": "an object", "NoneType": "null"}
    return names.get(type(value).__name__, type(value).__name__)


def _malformed(message: str, where: str) -> RowError:
    return RowError("message_malformed", message, where)
