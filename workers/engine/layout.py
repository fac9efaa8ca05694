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
class AttentionKind:
    """What a layer asks of attention, whatever the row. window, softcap: None is a layer without."""

    num_heads: int
    num_kv_heads: int
    width: int  # of a head's queries and keys
    value_width: int
    scaling: float | None  # None is width ** -0.5
    window: int | None
    softcap: float | None


@dataclass(frozen=True)
class Layout:
    """Of a whole row. Keeps the masks that its layers share. kinds: of the attention of all layers so far.

    failures: why kernels failed in a row that is only to try them; None is a row that counts, in which they raise.
    """

    segments: tuple[Segment, ...]
    kinds: set[AttentionKind] = field(default_factory=set, compare=False)
    failures: list[str] | None = field(default=None, compare=False)
    _made: dict[Hashable, Any] = field(default_factory=dict, compare=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gave when first asked for `key`."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found
