"""What the data report needs to know of a row: digests, lengths, and the special tokens that its text spells."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.spec.rows import THOUGHTS, Row, Text
from workers.data.alternatives import any_of
from workers.data.tokenize import Encoded

_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one usable row. Digests are 64 bits of BLAKE2b; lengths are those before truncation."""

    number: int
    prompt: int
    answers: tuple[int, ...]
    label: bool | None
    prompt_length: int
    answer_lengths: tuple[int, ...]
    kept_prompt: int
    kept_answers: tuple[int, ...]
    special: tuple[str, ...]

    @property
    def truncated(self) -> bool:
        return (self.prompt_length, self.answer_lengths) != (self.kept_prompt, self.kept_answers)


class SpecialTokenFinder:
    """Finds the texts of special tokens in what people wrote. It can be sent to another process."""

    def __init__(self, tokens: Collection[str]) -> None:
        self._pattern = re.compile(any_of(tokens)) if tokens else None
        self._tokens = tuple(tokens)

    def __call__(self, row: Row) -> tuple[str, ...]:
        """Sorted. The end token that a string answer brings along is none of them."""
        if self._pattern is None:
            return ()
        found: set[str] = set()
        for text in _texts(row.prompt):
            found.update(self._pattern.findall(text))
        for answer in row.answers:
            ends = isinstance(answer, str)
            for text in _texts(answer):
                found.update(self._pattern.findall(self._without_end(text) if ends else text))
        return tuple(sorted(found))

    def _without_end(self, text: str) -> str:
        words = text.rstrip()
        for token in self._tokens:
            if words.endswith(token):
                return words.removesuffix(token)
        return text


def token_facts(row: Row, encoded: Encoded, special: tuple[str, ...]) -> Facts:
    example = encoded.example
    kept = tuple(len(answer.ids) for answer in example.answers)
    lengths = (encoded.prompt_length, encoded.answer_lengths, len(example.prompt), kept)
    return Facts(row.number, *_digests(row), row.label, *lengths, special)


def character_facts(row: Row) -> Facts:
    """Without a tokenizer: lengths in characters, nothing cut."""
    prompt = _characters(row.prompt)
    answers = tuple(_characters(answer) for answer in row.answers)
    return Facts(row.number, *_digests(row), row.label, prompt, answers, prompt, answers, ())


def _digests(row: Row) -> tuple[int, tuple[int, ...]]:
    prompt = [row.prompt, row.tools, row.template_kwargs] if row.tools or row.template_kwargs else row.prompt
    return _digest(prompt), tuple(_digest(answer) for answer in row.answers)


def _digest(value: Any) -> int:
    text = value if isinstance(value, str) else _canonical(value)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _characters(text: Text) -> int:
    return sum(map(len, _texts(text)))


def _texts(text: Text) -> Iterator[str]:
    if isinstance(text, str):
        yield text
        return
    messages: Sequence[Any] = text
    for message in messages:
        for name in ("content", *THOUGHTS):
            if isinstance(words := message.get(name), str):
                yield words
