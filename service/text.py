"""What may be stored as text."""

import math
from typing import Any

MAX_DEPTH = 32


def storable(value: Any, depth: int = 0) -> Any:
    """A JSON value that every database and every JSON reader takes.

    Logs of a dying process hold anything: NUL becomes U+FFFD, a lone surrogate '?', a number that is not finite null,
    and what is nested deeper than 32 levels the words "nested too deep".
    """
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict | list) and depth >= MAX_DEPTH:
        return "nested too deep"
    if isinstance(value, dict):
        return {storable(str(key)): storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item, depth + 1) for item in value]
    return value


def first_unstorable(value: Any, where: str = "") -> str | None:
    """The dotted path of the first text in `value` that `storable` would change, for a client to correct."""
    if isinstance(value, dict):
        parts = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        parts = [(str(place), item) for place, item in enumerate(value)]
    else:
        return where if storable(value) != value else None
    for name, item in parts:
        if found := first_unstorable(item, f"{where}.{name}" if where else name):
            return found
    return None
