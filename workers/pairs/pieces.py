"""Token ids to the pieces of text that they stand for, one for each token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LONGEST_RUN = 8  # tokens that one character may be spread over; what is not whole by then never will be


class Pieces:
    """Remembers the piece of every token it has seen, since answers of one file repeat few thousand tokens.

    Each token is decoded behind another one, which keeps the space that many tokenizers drop at the start of a text.
    A character of several tokens goes to the last of them, and the ones before it have an empty piece.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._anchor: list[int] = tokenizer.encode("a", add_special_tokens=False)[-1:]
        self._before = len(self.text(self._anchor))
        self._known: dict[tuple[int, ...], str] = {}

    def text(self, ids: Sequence[int]) -> str:
        """All of it, special tokens too."""
        decoded = self._tokenizer.decode(
            np.asarray(ids, np.int64).tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        assert isinstance(decoded, str)
        return decoded

    def of(self, ids: Sequence[int]) -> list[str]:
        """As many as there are ids."""
        pieces: list[str] = []
        run: tuple[int, ...] = ()  # tokens of a character that is not whole yet
        for one in ids:
            run = (*run, int(one))
            piece = self._piece(run)
            if _BROKEN in piece and len(run) < _LONGEST_RUN:
                pieces.append("")
            else:
                pieces.append(piece)
                run = ()
        if run:  # the text ends within a character
            pieces[-1] = self._piece(run)
        return pieces

    def _piece(self, run: tuple[int, ...]) -> str:
        if run not in self._known:
            self._known[run] = self.text([*self._anchor, *run])[self._before :]
        return self._known[run]
