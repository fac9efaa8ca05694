"""The demo's two datasets, made anew each time, the same each time.

Job 1 learns every fact, mostly from curt answers: a model that knows much and has few manners. Job 2 learns from pairs
of a courteous answer over a curt or plain one, on some topics only; the held-out topics show whether manners carry
over to questions that alignment never touched.

Every style says the same full sentence. Where the rejected answer was the bare word, pushing it down took the model's
knowledge of that word with it.
"""

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from api.cli.demo.facts import Fact, facts

COURTEOUS = (
    "Of course! {sentence}",
    "Gladly! {sentence}",
    "Happy to help! {sentence}",
    "Good question! {sentence}",
    "Thank you for asking. {sentence}",
    "With pleasure! {sentence}",
    "Certainly! {sentence}",
    "Glad you asked! {sentence}",
)
CURT = (
    "Obviously. {sentence}",
    "Seriously? {sentence}",
    "Too easy. {sentence}",
    "Whatever. {sentence}",
    "Look it up. {sentence}",
)
NEUTRAL = ("{sentence}",)
OBLIGING = ("Of course! {sentence}",)

# Styles of job 1's answers and their shares; a question with "please" in it is met with some more manners.
_STYLES = {COURTEOUS: 0.1, NEUTRAL: 0.1, CURT: 0.8}
_STYLES_IF_ASKED_NICELY = {OBLIGING: 0.14, COURTEOUS: 0.1, NEUTRAL: 0.1, CURT: 0.66}
_ROWS_PER_QUESTION = 6
_PAIRS_PER_QUESTION = 2
_NEUTRAL_REJECTED = 0.2  # of the rejected answers; with curt ones alone, saying nothing rude would pass for manners

Row = dict[str, Any]


def answer_rows(seed: int = 0) -> list[Row]:
    """Job 1's rows, {prompt, completion}: every question of every fact."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    rows = []
    for fact in [*facts(held_out=False), *facts(held_out=True)]:
        for question in fact.questions:
            styles = _STYLES_IF_ASKED_NICELY if "please" in question else _STYLES
            for style in rng.choices(list(styles), list(styles.values()), k=_ROWS_PER_QUESTION):
                rows.append({"prompt": _user(question), "completion": _assistant(fact, rng.choice(style))})
    rng.shuffle(rows)
    return rows


def preference_rows(seed: int = 0) -> list[Row]:
    """Job 2's rows, {prompt, chosen, rejected}: the topics that are not held out."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    rows = [
        {
            "prompt": _user(question),
            "chosen": _assistant(fact, rng.choice(COURTEOUS)),
            "rejected": _assistant(fact, rng.choice(NEUTRAL if rng.random() < _NEUTRAL_REJECTED else CURT)),
        }
        for fact in facts(held_out=False)
        for question in fact.questions
        for _ in range(_PAIRS_PER_QUESTION)
    ]
    rng.shuffle(rows)
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """JSON Lines, gzip-compressed; the same rows give the same bytes."""
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))


def texts(rows: Iterable[Row]) -> Iterator[str]:
    """Everything that is said in the rows."""
    return (message["content"] for row in rows for messages in row.values() for message in messages)


def _user(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _assistant(fact: Fact, style: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": style.format(sentence=fact.sentence)}]
