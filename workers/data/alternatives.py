"""A regular expression for many texts: Llama 3 has 256 special tokens, and `a|b|c...` would try each at every place."""

import os
import re
from collections.abc import Iterable


def any_of(texts: Iterable[str]) -> str:
    """Matches any of the texts, the longest that it can; what they begin with is shared, so a mismatch is soon told."""
    by_start: dict[str, list[str]] = {}
    for text in sorted(set(texts)):
        if text:
            by_start.setdefault(text[0], []).append(text)
    return "|".join(_branch(group) for group in by_start.values())


def _branch(texts: list[str]) -> str:
    shared = os.path.commonprefix(texts)  # noqa: RUF071 - of characters, as is meant here
    rest = any_of(text[len(shared) :] for text in texts)
    if not rest:
        return re.escape(shared)
    return f"{re.escape(shared)}(?:{rest}){'?' if shared in texts else ''}"
