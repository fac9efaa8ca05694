"""Text to token ids: as a beginning, or as what follows other text.

Tokenizers of the SentencePiece kind put a space before every text they are given, so an answer that is tokenised apart
from its prompt would begin with a space that nobody wrote. A continuation is therefore encoded behind a guard, a text
whose tokens merge with nothing, and the guard's tokens are taken off again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBES = ("a", " a", "1")


class TextEncoder:
    """Encodes many texts in one call of the tokenizer.

    exact: whether continuations decode to the text they were made from. False for tokenizers that cannot write two
    words without a space, or not the letters of the probe; they are then given the text alone.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        candidates = ["", *(str(token) for token in (tokenizer.eos_token, tokenizer.bos_token) if token), "\n"]
        self._guards = [guard for guard in candidates if self._continues(guard)]
        self.exact = bool(self._guards)
        if self._guards[:1] == [""] or not self.exact:
            self._guards = [""]

    def beginnings(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with the special tokens that the tokenizer adds of its own, such as BOS."""
        return self._encode(texts, special=True)

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts that hold their special tokens already, as a chat template writes them."""
        return self._encode(texts, special=False)

    def continuations(self, texts: Sequence[str]) -> list[list[int] | None]:
        """Ids of texts that follow others; None for one that no guard keeps its start of."""
        found: list[list[int] | None] = [None] * len(texts)
        open_ = list(range(len(texts)))
        for guard in self._guards:
            start = self._encode([guard], special=False)[0] if guard else []
            for i, ids in zip(open_, self._encode([guard + texts[i] for i in open_], special=False), strict=True):
                if ids[: len(start)] == start:
                    found[i] = ids[len(start) :]
            open_ = [i for i in open_ if found[i] is None]
            if not open_:
                break
        return found

    def _encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    def _continues(self, guard: str) -> bool:
        before, start = self._encode(["b", guard], special=False)
        for probe in _PROBES:
            (ids,) = self._encode([guard + probe], special=False)
            if ids[: len(start)] != start or self._decode([*before, *ids[len(start) :]]) != f"b{probe}":
                return False
        return True

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text
