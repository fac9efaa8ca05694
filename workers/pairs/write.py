"""Writes the file of `service.spec.pairs`: on a disk of this machine first, then at its place by one rename."""

import json
import math
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.spec.pairs import EXCERPT, SCHEMA, PairsAbout, PairSort
from workers.data.examples import Answer, Example
from workers.durable import sync
from workers.pairs.pieces import Pieces
from workers.reference.store import Logps, Score

_MEASURES = ("margin_before", "margin_after", "margin_change", "most_wrong")


@dataclass(frozen=True)
class MeasuredPair:
    """An example with at least two answers, best first, of which the first and the last make the pair."""

    example: Example
    before: Score
    after: Score

    @property
    def answers(self) -> tuple[Answer, Answer]:
        return self.example.answers[0], self.example.answers[-1]

    def sums(self) -> dict[str, float]:
        """Log-probs of both answers, over their counted tokens."""
        return {
            f"{name}_{when}": float(scores[at].astype(np.float64).sum())
            for name, at in (("chosen", 0), ("rejected", -1))
            for when, scores in (("before", self.before), ("after", self.after))
        }

    def measures(self) -> dict[str, float]:
        sums = self.sums()
        chosen, rejected = self.answers
        before = sums["chosen_before"] - sums["rejected_before"]
        after = sums["chosen_after"] - sums["rejected_after"]
        per_token = sums["chosen_after"] / chosen.num_counted - sums["rejected_after"] / rejected.num_counted
        return sums | dict(zip(_MEASURES, (before, after, after - before, per_token), strict=True))


def write_pairs(target: Path, pairs: Iterable[MeasuredPair], about: PairsAbout, pieces: Pieces) -> None:
    """Raises OSError and sqlite3.Error; `target` is then as it was."""
    with tempfile.TemporaryDirectory() as directory:
        local = Path(directory) / "pairs.sqlite"
        with closing(sqlite3.connect(local)) as connection:
            connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {SCHEMA}")
            with connection:
                _insert(connection, pairs, pieces)
                _rank(connection)
                facts = [(name, json.dumps(value)) for name, value in about.model_dump().items()]
                connection.executemany("INSERT INTO about VALUES (?, ?)", facts)
        temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
        try:
            shutil.copyfile(local, temporary)
            sync(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync(target.parent)


def _insert(connection: sqlite3.Connection, pairs: Iterable[MeasuredPair], pieces: Pieces) -> None:
    for pair in pairs:
        example = pair.example
        prompt = pieces.text(example.prompt.tolist())
        line: dict[str, Any] = {
            "row": example.row,
            "digest": example.key,
            "num_answers": len(example.answers),
            "prompt_end": prompt[-EXCERPT:],
        }
        details: dict[str, Any] = {"row": example.row, "prompt": prompt}
        for name, answer, at in zip(("chosen", "rejected"), pair.answers, (0, -1), strict=True):
            texts = pieces.of(answer.ids.tolist())
            line[f"{name}_start"] = "".join(texts)[:EXCERPT]
            line[f"{name}_tokens"] = answer.num_counted
            details[f"{name}_ids"] = answer.ids.astype("<i4").tobytes()
            details[f"{name}_texts"] = json.dumps(texts)
            details[f"{name}_logps_before"] = _of_all_tokens(answer.mask, pair.before[at])
            details[f"{name}_logps_after"] = _of_all_tokens(answer.mask, pair.after[at])
        line |= {name: value if math.isfinite(value) else None for name, value in pair.measures().items()}
        for table, values in (("pairs", line), ("details", details)):
            columns, marks = ", ".join(values), ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))  # noqa: S608 - names of ours


def _of_all_tokens(mask: NDArray[np.bool_], counted: Logps) -> bytes:
    values = np.full(len(mask), np.nan, "<f4")
    values[mask] = counted
    return values.tobytes()


def _rank(connection: sqlite3.Connection) -> None:
    """The place of each pair in each order; what is not finite comes last."""
    for sort in set(PairSort) - {PairSort.ROW}:
        order = f"row_number() OVER (ORDER BY {sort} IS NULL, {sort}, row) AS place"
        places = f"SELECT row AS of, {order} FROM pairs"  # noqa: S608 - names of ours
        connection.execute(f"UPDATE pairs SET {sort.column} = place FROM ({places}) WHERE row = of")  # noqa: S608
        connection.execute(f"CREATE UNIQUE INDEX pairs_{sort.column} ON pairs ({sort.column})")
