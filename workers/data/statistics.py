"""Counting a job's rows, and the report of it.

Of each row some numbers are kept (about 50 bytes), never its text: digests of 64 bits tell equal rows, prompts and
answers. Two different ones among a million rows meet with a probability of 3e-8.
"""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from service.spec import AlignmentJob
from service.spec.data_report import DataReport, Overlap, Problem, Reason, RowSet, SpecialTokens
from service.spec.rows import RowProblem
from workers.data.advice import advise
from workers.data.facts import Facts
from workers.data.lengths import length_auc, longer_is_better, summarise
from workers.data.order import TrainingOrder

SHOWN = 20
_64_BITS = 2**64 - 1


@dataclass
class _Tally:
    """Rows of one kind: their number, and the first of them."""

    message: str = ""
    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.count += 1
        if self.count <= SHOWN:
            self.rows.append(row)


class Statistics:
    """Takes rows one after the other, in file order, and reports on all of them.

    has_tokens: lengths are tokens, and special tokens were looked for; else lengths are characters.
    exact: whether the tokenizer can continue a text exactly.
    """

    def __init__(self, *, has_tokens: bool, exact: bool = True) -> None:
        self._has_tokens = has_tokens
        self._exact = exact
        self._file_rows, self._last = 0, -1  # the row that was taken last; those of one pair follow each other
        self._rows = self._used = self._truncated = self._longest = 0
        self._prompt_total = self._answer_total = 0
        self._problems: list[RowProblem] = []
        self._reasons: dict[str, _Tally] = {}
        self._cut_off: str | None = None
        self._prompt_lengths: Counter[int] = Counter()
        self._answer_lengths: Counter[int] = Counter()
        self._longer = self._shorter = 0
        self._by_label: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
        self._numbers, self._prompts, self._whole = array("q"), array("Q"), array("Q")
        self._claims, self._opposites, self._claimants = array("Q"), array("Q"), array("q")
        self._special_rows = _Tally()
        self._special: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        return self._rows

    def add_problem(self, problem: RowProblem) -> None:
        self._count(problem.row)
        if problem.fatal:
            self._cut_off = f"row {problem.row}: {problem.message} ({problem.code})"
        if len(self._problems) < SHOWN:
            self._problems.append(problem)
        self._reasons.setdefault(problem.code, _Tally(problem.message)).add(problem.row)

    def add(self, row: Facts) -> None:
        self._count(row.number)
        self._used += 1
        self._truncated += row.truncated
        self._prompt_total += row.kept_prompt
        self._answer_total += sum(row.kept_answers)
        self._longest = max(self._longest, row.kept_prompt + max(row.kept_answers))
        self._prompt_lengths[row.prompt_length] += 1
        self._answer_lengths.update(row.answer_lengths)
        self._count_preference(row)
        self._numbers.append(row.number)
        self._prompts.append(row.prompt)
        self._whole.append(_join(row.prompt, *row.answers, -1 if row.label is None else int(row.label)))
        if row.special:
            self._special_rows.add(row.number)
            self._special.update(row.special)

    def _count(self, number: int) -> None:
        self._rows += 1
        self._file_rows += number != self._last
        self._last = number

    def _count_preference(self, row: Facts) -> None:
        if row.label is not None:
            self._by_label[row.label][row.answer_lengths[0]] += 1
            self._claim(
                row, _join(row.prompt, row.answers[0], row.label), _join(row.prompt, row.answers[0], not row.label)
            )
            return
        if len(row.answers) > 1:
            best, worst = row.answer_lengths[0], row.answer_lengths[-1]
            self._longer += best > worst
            self._shorter += best < worst
        for better, worse in combinations(row.answers, 2):
            self._claim(row, _join(row.prompt, better, worse), _join(row.prompt, worse, better))

    def _claim(self, row: Facts, claim: int, opposite: int) -> None:
        self._claims.append(claim)
        self._opposites.append(opposite)
        self._claimants.append(row.number)

    def report(
        self, job: AlignmentJob, *, read_as: str = "", ignored_columns: Mapping[str, int] | None = None
    ) -> DataReport:
        """Everything there is to say, with advice. `read_as`, `ignored_columns`: what the reader says of the file."""
        reasons = sorted(
            (
                Reason(code=code, message=tally.message, count=tally.count, rows=tally.rows)
                for code, tally in self._reasons.items()
            ),
            key=lambda reason: -reason.count,
        )
        equal = next((reason for reason in reasons if reason.code == "answers_equal"), RowSet())
        report = DataReport(
            read_as=read_as,
            ignored_columns=dict(ignored_columns or {}),
            unit="tokens" if self._has_tokens else "characters",
            file_rows=self._file_rows,
            rows=self._rows,
            used=self._used,
            bad=self._rows - self._used,
            reasons=reasons,
            problems=[Problem(row=p.row, code=p.code, message=p.message, field=p.field) for p in self._problems],
            cut_off=self._cut_off,
            truncated=self._truncated,
            truncated_share=round(self._truncated / self._used, 4) if self._used else 0.0,
            prompt_tokens=self._prompt_total if self._has_tokens else None,
            answer_tokens=self._answer_total if self._has_tokens else None,
            longest=self._longest,
            prompt_lengths=summarise(self._prompt_lengths),
            answer_lengths=summarise(self._answer_lengths),
            duplicates=self._duplicates(),
            equal_answers=RowSet(count=equal.count, rows=equal.rows),
            contradictions=self._contradictions(),
            overlap=self._overlap(job),
            special_tokens=self._special_tokens() if self._has_tokens else None,
            length_bias=length_auc(self._by_label[True], self._by_label[False])
            or longer_is_better(self._longer, self._shorter),
            warnings=[],
        )
        return report.model_copy(update={"warnings": advise(report, job, exact=self._exact)})

    def _duplicates(self) -> RowSet:
        whole = _unsigned(self._whole)
        repeated = np.ones(len(whole), np.bool_)
        repeated[np.unique(whole, return_index=True)[1]] = False
        return _row_set(_signed(self._numbers)[repeated])

    def _contradictions(self) -> RowSet:
        contradicted = np.isin(_unsigned(self._opposites), _unsigned(self._claims))
        return _row_set(np.unique(_signed(self._claimants)[contradicted]))

    def _overlap(self, job: AlignmentJob) -> Overlap:
        if not self._used:
            return Overlap(held_out=0, shared=RowSet())
        held_out = TrainingOrder(job, _signed(self._numbers)).held_out
        prompts = _unsigned(self._prompts)
        trained = np.ones(self._used, np.bool_)
        trained[held_out] = False
        shared = held_out[np.isin(prompts[held_out], prompts[trained])]
        return Overlap(held_out=len(held_out), shared=_row_set(_signed(self._numbers)[shared]))

    def _special_tokens(self) -> SpecialTokens:
        tokens = dict(self._special.most_common(SHOWN))
        return SpecialTokens(count=self._special_rows.count, rows=self._special_rows.rows, tokens=tokens)


def _join(*values: int) -> int:
    return hash(values) & _64_BITS  # of numbers alone, so the same in every process


def _row_set(numbers: NDArray[np.int64]) -> RowSet:
    return RowSet(count=len(numbers), rows=numbers[:SHOWN].tolist())


def _unsigned(values: "array[int]") -> NDArray[np.uint64]:
    return np.frombuffer(values, np.uint64) if values else np.empty(0, np.uint64)


def _signed(values: "array[int]") -> NDArray[np.int64]:
    return np.frombuffer(values, np.int64) if values else np.empty(0, np.int64)
