"""A file of pairs as a job leaves it, written by the worker's own code from numbers made up here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from service.spec.pairs import PairsAbout
from tests.models import make_tokenizer
from workers.data.examples import Answer, Example
from workers.pairs.pieces import Pieces
from workers.pairs.write import MeasuredPair, write_pairs
from workers.reference.store import Score

Texts = tuple[str, ...]  # the prompt, then the answers, best first
PAIRS: tuple[Texts, ...] = (
    ("What is the capital of France?", "The capital is Paris.", "No idea."),
    ("How is bread made?", "Mix flour, water, salt and yeast.", "Buy it."),
    ("<script>alert(1)</script>", "<b>bold</b> & <img src=x onerror=alert(2)>", "plain"),
    ("Say hello to 🙂.", "Grüße 🙂!", "Hi."),
)


def write_pairs_file(path: Path, texts: Sequence[Texts] = PAIRS, *, seed: int = 3) -> None:
    """Rows are numbered from 1. Training has made chosen answers likelier, those of even rows less likely."""
    tokenizer = make_tokenizer()
    draw = np.random.default_rng(seed)
    pairs = [_measured(row, one, tokenizer, draw) for row, one in enumerate(texts, 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    about = PairsAbout(
        before="reference",
        scored=len(pairs),
        trained=len(pairs),
        seed=0,
        steps=9,
        seconds=0.5,
        preferred_before=sum(pair.measures()["margin_before"] > 0 for pair in pairs),
        preferred_after=sum(pair.measures()["margin_after"] > 0 for pair in pairs),
    )
    write_pairs(path, pairs, about, Pieces(tokenizer))


def _measured(row: int, texts: Texts, tokenizer: PreTrainedTokenizerBase, draw: np.random.Generator) -> MeasuredPair:
    prompt, *answers = (np.array(tokenizer.encode(text), np.int32) for text in texts)
    before: Score = tuple(-draw.uniform(0.5, 4, len(ids)).astype(np.float32) for ids in answers)
    sign = 1 if row % 2 else -1
    moves = [sign if at == 0 else -sign for at in range(len(answers))]
    after: Score = tuple(
        np.minimum(old + move * draw.uniform(0, 0.5, len(old)), -0.01).astype(np.float32)
        for old, move in zip(before, moves, strict=True)
    )
    example = Example(row, prompt, tuple(Answer(ids, np.ones(len(ids), np.bool_)) for ids in answers))
    return MeasuredPair(example, before, after)
