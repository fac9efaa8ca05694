"""Tokenised examples: what every stage after preparation works on."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Answer:
    """Token ids after the prompt; `mask` marks the ones that count (an assistant's own words and its end token)."""

    ids: Ids
    mask: Mask

    @property
    def num_counted(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True)
class Example:
    """A prompt and its answers: the chosen and the rejected one of a pair, k of them best first of a ranking, or one.

    label: of an unpaired answer, whether it is desirable; else None. An unpaired answer for a loss with a KL term has
    a second one beside it, which was written for another prompt (see `workers.data.example_file`).
    weight, margin: as the row has them, or 1 and 0.
    """

    row: int
    prompt: Ids
    answers: tuple[Answer, ...]
    label: bool | None = None
    weight: float = 1.0
    margin: float = 0.0

    @property
    def max_length(self) -> int:
        """Tokens of the prompt with its longest answer."""
        return len(self.prompt) + max(len(answer.ids) for answer in self.answers)

    @property
    def key(self) -> bytes:
        """SHA-256 over ids and masks, each with its length: equal exactly when a model sees the same thing."""
        digest = hashlib.sha256()
        for ids in (self.prompt, *(answer.ids for answer in self.answers)):
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(ids.astype("<i4").tobytes())
        for answer in self.answers:
            digest.update(np.packbits(answer.mask).tobytes())
        return digest.digest()
