"""JSON Merge Patch (RFC 7396)."""

from typing import Any

MAX_DEPTH = 32  # of any object or list in another; a specification needs far fewer


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` with `patch` laid over it: objects member by member, null takes a member out, all else replaces.

    It calls itself for each level of `patch`: refuse one that `is_too_deep` first.
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def is_too_deep(value: Any) -> bool:
    """Whether anything in `value` is nested deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)
