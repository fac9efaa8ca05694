"""The preferred property of an answer, by a rule that anyone can check by reading it: courteous, brief and right.

The same rule for both models. It looks at the answer and the fact asked for, and at nothing else.
"""

import re
from dataclasses import dataclass

from api.cli.demo.facts import Fact

MAX_WORDS = 20

_KIND = (
    *("of course", "certainly", "gladly", "glad to", "glad you", "happy to", "pleasure", "good question"),
    *("thank you", "thanks", "welcome", "hope that helps"),
)
_RUDE = ("obviously", "seriously", "too easy", "whatever", "look it up", "everyone knows", "stupid")


@dataclass(frozen=True)
class Verdict:
    courteous: bool  # a kind word and no rude one
    brief: bool  # ended by the model itself, within MAX_WORDS words
    right: bool  # names the answer, and no other of its topic

    @property
    def preferred(self) -> bool:
        return self.courteous and self.brief and self.right


def judge(answer: str, fact: Fact, *, finished: bool) -> Verdict:
    """`finished`: whether the model ended the answer, rather than running into the token limit."""
    return Verdict(
        courteous=_names(answer, *_KIND) and not _names(answer, *_RUDE),
        brief=finished and len(answer.split()) <= MAX_WORDS,
        right=_names(answer, fact.answer) and not _names(answer, *fact.wrong),
    )


def _names(text: str, *phrases: str) -> bool:
    return any(re.search(rf"\b{re.escape(phrase)}\b", text, re.IGNORECASE) for phrase in phrases)
