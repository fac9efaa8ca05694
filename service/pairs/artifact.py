"""Reads what a job has left of its pairs (format: `service.spec.pairs`), a page or a pair at a time."""

import json
import math
import sqlite3
import struct
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.spec.pairs import PairsAbout, PairSort

MAX_POINTS = 5000
MAX_TOKENS = 20_000  # of an answer that is shown
MAX_CHARACTERS = 200_000  # of a prompt
_COLUMNS = (
    "row, digest, num_answers, prompt_end, chosen_start, rejected_start, chosen_tokens, rejected_tokens, "
    "chosen_before, chosen_after, rejected_before, rejected_after, margin_before, margin_after, margin_change, "
    "most_wrong"
)


class Damaged(Exception):
    """The file is not what a job leaves."""


@dataclass(frozen=True)
class Token:
    id: int
    text: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class Pair:
    row: int
    digest: str
    num_answers: int
    prompt_end: str
    chosen_start: str
    rejected_start: str
    chosen_tokens: int
    rejected_tokens: int
    chosen_before: float | None
    chosen_after: float | None
    rejected_before: float | None
    rejected_after: float | None
    margin_before: float | None
    margin_after: float | None
    margin_change: float | None
    margin_per_token: float | None


@dataclass(frozen=True)
class PairDetail:
    pair: Pair
    prompt: str
    chosen: list[Token]
    rejected: list[Token]
    cut: bool  # the prompt to its last MAX_CHARACTERS, or an answer to its first MAX_TOKENS


class PairsFile:
    """Nothing of it is held between calls. All raise FileNotFoundError, and Damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def about(self) -> PairsAbout:
        with self._open() as connection:
            facts = connection.execute("SELECT name, value FROM about")
            return PairsAbout.model_validate({name: json.loads(value) for name, value in facts})

    def page(
        self, sort: PairSort, *, descending: bool, limit: int, after: int | None, rows: Collection[int] | None = None
    ) -> tuple[list[Pair], int | None]:
        """At most `limit` pairs, and `after` of the next page, None at the end.

        after: the place in the order of the last pair of the page before. rows: only these.
        """
        column, order = sort.column, "DESC" if descending else "ASC"
        beyond = "<" if descending else ">"
        conditions, values = [], []
        if after is not None:
            conditions.append(f"{column} {beyond} ?")
            values.append(after)
        if rows is not None:
            conditions.append("row IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(sorted(rows)))  # type: ignore[arg-type] # both are what SQLite binds
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        query = f"SELECT {_COLUMNS}, {column} AS place FROM pairs {where} ORDER BY {column} {order} LIMIT ?"  # noqa: S608 - names of ours
        with self._open() as connection:
            found = [dict(line) for line in connection.execute(query, (*values, limit + 1))]
        more = len(found) > limit
        places = [line.pop("place") for line in found[:limit]]
        return [_pair(line) for line in found[:limit]], places[-1] if more else None

    def detail(self, row: int) -> PairDetail | None:
        """None if the pair was not measured."""
        with self._open() as connection:
            line = connection.execute(f"SELECT {_COLUMNS} FROM pairs WHERE row = ?", (row,)).fetchone()  # noqa: S608 - names of ours
            more = connection.execute("SELECT * FROM details WHERE row = ?", (row,)).fetchone()
            if line is None or more is None:
                return None
            chosen, rejected = _tokens(more, "chosen"), _tokens(more, "rejected")
            cut = len(more["prompt"]) > MAX_CHARACTERS or max(len(chosen), len(rejected)) > MAX_TOKENS
            prompt = more["prompt"][-MAX_CHARACTERS:]
            return PairDetail(_pair(dict(line)), prompt, chosen[:MAX_TOKENS], rejected[:MAX_TOKENS], cut)

    def num_answers(self, row: int) -> int | None:
        """None if the pair was not measured."""
        with self._open() as connection:
            line = connection.execute("SELECT num_answers FROM pairs WHERE row = ?", (row,)).fetchone()
        return None if line is None else line["num_answers"]

    def margins(self) -> list[tuple[int, float, float]]:
        """Row, margin before and after of at most MAX_POINTS pairs, evenly taken from the lowest margin to the highest;
        in order of rows. Without those that are not finite."""
        query = """
            SELECT row, margin_before, margin_after FROM pairs, (SELECT count(*) AS total FROM pairs)
            WHERE margin_before IS NOT NULL AND margin_after IS NOT NULL
              AND by_margin_after * :most / total > (by_margin_after - 1) * :most / total
            ORDER BY row"""
        with self._open() as connection:
            return [tuple(line) for line in connection.execute(query, {"most": MAX_POINTS})]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self._path.exists():  # a moment later SQLite would say only that it cannot open it
            raise FileNotFoundError(self._path)
        try:
            # it never changes: no locks, which shared storage may not have
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?immutable=1", uri=True)) as connection:
                connection.row_factory = sqlite3.Row
                yield connection
        except (sqlite3.Error, ValueError, struct.error) as error:
            raise Damaged(str(error)) from error


def _pair(line: dict[str, Any]) -> Pair:
    digest: bytes = line.pop("digest")
    return Pair(digest=digest.hex(), margin_per_token=line.pop("most_wrong"), **line)


def _tokens(line: sqlite3.Row, name: str) -> list[Token]:
    ids = struct.unpack(f"<{len(line[f'{name}_ids']) // 4}i", line[f"{name}_ids"])
    texts = json.loads(line[f"{name}_texts"])
    before, after = (_floats(line[f"{name}_logps_{when}"]) for when in ("before", "after"))
    return [Token(*token) for token in zip(ids, texts, before, after, strict=True)]


def _floats(blob: bytes) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in struct.unpack(f"<{len(blob) // 4}f", blob)]
