"""One expression for many texts."""

import re

from hypothesis import given
from hypothesis import strategies as st

from workers.data.alternatives import any_of

WORDS = st.lists(st.text("ab<|[", min_size=1, max_size=5), min_size=1, max_size=8)


@given(WORDS, st.text("ab<|[", max_size=30))
def test_it_finds_what_plain_alternatives_find_the_longest_first(words: list[str], text: str) -> None:
    plain = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    assert re.findall(any_of(words), text) == re.findall(plain, text)


def test_shared_beginnings_are_written_once() -> None:
    assert any_of(["<|a1|>", "<|a2|>", "[x]", "[x"]) == r"<\|a(?:1\|>|2\|>)|\[x(?:\])?"
