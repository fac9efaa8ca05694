"""What pydantic found wrong with a request, said so that a person can correct it."""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from service.errors import InvalidRequest, UnknownLoss
from service.loss_hints import unknown_loss, unused_option
from service.spec import AlignmentJob, LossKind

_SHOWN = 20
_ECHO = 100  # characters of an input that are shown


def explain(errors: Sequence[Any], body: Any) -> InvalidRequest:
    """The problem to answer with. `extra["errors"]`: at most 20 of `{field, message, input?}`.

    errors: from pydantic's `ValidationError.errors()`, with or without FastAPI's leading "body", "query"...
    body: the value that was validated; it tells the field names in an error's location from the tags of unions.
    """
    told = [_tell(error, body) for error in errors[:_SHOWN]]
    detail = "; ".join(f"{one['field']}: {one['message']}" if one["field"] else one["message"] for one in told[:3])
    if len(errors) > 3:
        detail += f"; and {len(errors) - 3} more"
    for error in errors:
        if error["type"] == "union_tag_invalid" and "losses" in error["loc"]:
            return UnknownLoss(detail, errors=told)
    return InvalidRequest(detail, errors=told)


def _tell(error: Any, body: Any) -> dict[str, Any]:
    field = _field(error, body)
    told: dict[str, Any] = {"field": field, "message": _message(error, field)}
    value = error.get("input")
    if isinstance(value, str) and error["type"] != "json_invalid":
        told["input"] = value[:_ECHO]
    elif isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        told["input"] = value
    return told


def _field(error: Any, body: Any) -> str:
    loc = list(error["loc"])
    if loc and loc[0] in ("body", "query", "path", "header", "cookie"):
        place = loc.pop(0)
        if place != "body":
            return ".".join(map(str, loc))
    if error["type"] == "json_invalid":
        return ""
    parts: list[str] = []
    value = body
    for index, part in enumerate(loc):
        absent = index == len(loc) - 1 and error["type"] == "missing"
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            if not absent:  # the tag of a union member, or a field that a bare string stands for
                continue
        parts.append(str(part))
    return ".".join(parts)


def _message(error: Any, field: str) -> str:
    kind, context = error["type"], error.get("ctx", {})
    name = field.rpartition(".")[2]
    match kind:
        case "json_invalid":
            return f"the body is not JSON: {context.get('error', error['msg'])} at character {error['loc'][-1]}"
        case "missing" if not field:
            return "the body is missing: send a JSON object with Content-Type: application/json"
        case "missing":
            return "this field is required"
        case "extra_forbidden" if (loss := _loss_of(error)) is not None:
            return unused_option(loss, name)
        case "extra_forbidden":
            return f"there is no such field here{_did_you_mean(name, field)}"
        case "model_attributes_type" | "dict_type" if not field:
            return "the body must be a JSON object, sent with Content-Type: application/json"
        case "union_tag_not_found" if "losses" in error["loc"]:
            return f"`type` is missing; it is one of {', '.join(LossKind)}"
        case "union_tag_not_found":
            return "`type` is missing: /docs shows the forms that this can have"
        case "union_tag_invalid" if "losses" in error["loc"]:
            return unknown_loss(str(context["tag"])[:_ECHO])
        case "union_tag_invalid":
            tags = re.findall(r"'([^']*)'", context["expected_tags"])  # of an enum's members too
            near = difflib.get_close_matches(str(context["tag"]), tags, n=1, cutoff=0.5)
            hint = f". Did you mean '{near[0]}'?" if near else ""
            return f"there is no type '{str(context['tag'])[:_ECHO]}'; it is one of {', '.join(tags)}{hint}"
        case "model_attributes_type" | "dict_type":
            return "this must be a JSON object"
        case "string_pattern_mismatch" if field in _fields():
            return f"malformed; expected: {_fields()[field].partition('. ')[0]}"
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
        case "string_unicode":
            return "this is not Unicode text: a lone surrogate stands in it"
        case _:
            message = str(error["msg"])
            return message[:1].lower() + message[1:]


def _loss_of(error: Any) -> LossKind | None:
    """The loss whose option the error is about: pydantic puts its type between the list's index and the option."""
    match list(error["loc"]):
        case [*_, "losses", int(), kind, _]:
            return LossKind(kind)
    return None


def _did_you_mean(name: str, refused: str) -> str:
    if refused in _fields():  # a member of the same union has it, with another `type`
        return f": '{refused}' is a field of another `type`"
    by_name: dict[str, str] = {}
    for path in sorted(_fields(), key=lambda path: (path.count("."), path)):
        by_name.setdefault(path.rpartition(".")[2], path)
    near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.75)
    return f"; did you mean '{by_name[near[0]]}'?" if near else ""


@cache
def _fields() -> dict[str, str]:
    """The description of every field of a job, by its path, such as `training.batch_size` and `losses.N.beta`."""
    schema = AlignmentJob.model_json_schema()
    return dict(_walk(schema, schema["$defs"], ""))


def _walk(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    if reference := schema.get("$ref"):
        yield from _walk(definitions[reference.rpartition("/")[2]], definitions, prefix)
    for kind in ("anyOf", "oneOf", "allOf"):
        for member in schema.get(kind, ()):
            yield from _walk(member, definitions, prefix)
    if isinstance(schema.get("items"), dict):
        yield from _walk(schema["items"], definitions, f"{prefix}N.")
    for name, member in schema.get("properties", {}).items():
        yield f"{prefix}{name}", member.get("description", "")
        yield from _walk(member, definitions, f"{prefix}{name}.")
