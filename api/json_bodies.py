"""JSON that every reader understands alike."""

import json
from typing import Any, NoReturn

from service.errors import InvalidRequest

MAX_DEPTH = 64


def check_json(body: bytes) -> None:
    """Raises InvalidRequest for what JSON readers take differently or only some take: a member given twice, NaN and
    Infinity, nesting deeper than 64 levels.

    What is no JSON at all is left to whoever reads it for its fields.
    """
    if not body.lstrip().startswith((b"{", b"[")):
        return
    try:
        value = json.loads(body, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        return
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> list[Any]:
    """The lists and objects directly in a list or object."""
    held = value.values() if isinstance(value, dict) else value
    return [one for one in held if isinstance(one, dict | list)]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InvalidRequest(f"The body has '{twice[:100]}' twice in one object: give it once.", field=twice[:100])
    return value


def _no_number(name: str) -> NoReturn:
    raise InvalidRequest(f"The body has {name}, which is no number in JSON: leave it out, or send null or a number.")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
