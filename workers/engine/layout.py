"""Where the prompts and answers of a packed row lie."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Segment:
    """Where an example's prompt and answers lie in the row; they follow one another."""

    prompt: slice
    answers: tuple[slice, ...]


@dataclass(frozen=True)
class Layout:
    """Of a whole row. Keeps the masks that its layers share."""

    segments: tuple[Segment, ...]
    _made: dict[Hashable, Any] = field(default_factory=dict, compare=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gave when first asked for `key`."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found
