"""The prepare stage: rows of the training file to a file of examples, every row accounted for.

Rows stream: read here, tokenised on all cores in chunks, written in order. Memory holds the chunks on the way and
some 50 bytes of each row for the report.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from service.spec import AlignmentJob
from service.spec.data_report import DataReport
from service.spec.rows import Row, RowNeeds, RowProblem, RowReader, read_rows
from workers.data.encode import TokenEncoder, Usable, approximate_size, measure
from workers.data.example_file import kl_needs_prompts, write_examples
from workers.data.examples import Example
from workers.data.pool import map_chunks, usable_cpus
from workers.data.statistics import Statistics
from workers.errors import AttemptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROGRESS_EVERY = 1000


def prepare(
    job: AlignmentJob,
    source: Path,
    target: Path,
    tokenizer: "PreTrainedTokenizerBase",
    on_progress: Callable[[int], None],
    *,
    validation: Path | None = None,
    processes: int | None = None,
) -> DataReport:
    """Tokenise `source` into `target` (see `workers.data.example_file`); a second call with the same target reuses it.

    validation: a file of rows to measure on, which come after the others and are numbered -1, -2...
    processes: by default one for each core that this process may use.
    The report tells whether the rows are good enough for the job: see `require_usable`.
    """
    report_path = target.with_suffix(".report.json")
    if report_path.exists():  # written last, so the examples are whole
        return DataReport.model_validate_json(report_path.read_bytes())
    target.parent.mkdir(parents=True, exist_ok=True)
    encoder = TokenEncoder(tokenizer, job.data)
    statistics = Statistics(has_tokens=True, exact=encoder.exact)
    rows = read_rows(source, RowNeeds.of(job))

    def examples() -> Iterator[Example]:
        measured = _negated(read_rows(validation, RowNeeds.of(job))) if validation else ()
        for result in map_chunks(encoder, chain(rows, measured), processes or usable_cpus(), approximate_size):
            if isinstance(result, RowProblem):
                statistics.add_problem(result)
            else:
                statistics.add(result.facts)
                assert result.example is not None
                yield result.example
            if statistics.rows % _PROGRESS_EVERY == 0:
                on_progress(statistics.rows)

    write_examples(target, examples(), kl_max_length=job.data.max_length if job.needs_kl_answers else None)
    report = report_of(statistics, job, rows)
    temporary = report_path.with_name(f".{report_path.name}.{os.getpid()}")
    temporary.write_text(report.model_dump_json())
    temporary.replace(report_path)
    return report


def inspect(
    job: AlignmentJob,
    source: Path,
    tokenizer: "PreTrainedTokenizerBase | None",
    on_progress: Callable[[int], None],
) -> DataReport:
    """The report alone, of a file that no job has yet; without a tokenizer it counts characters.

    Raises AttemptError `kl_needs_prompts`, as preparing the job would, when it has a KL term and all prompts are equal.
    """
    rows = read_rows(source, RowNeeds.of(job))
    results: Iterator[Usable | RowProblem]
    if tokenizer is None:
        statistics = Statistics(has_tokens=False)
        results = map_chunks(measure, rows, 1, approximate_size)
    else:
        encoder = TokenEncoder(tokenizer, job.data)
        statistics = Statistics(has_tokens=True, exact=encoder.exact)
        results = map_chunks(encoder, rows, usable_cpus(), approximate_size)
    if tally(statistics, results, on_progress) == 1 and job.needs_kl_answers:
        raise kl_needs_prompts()
    return report_of(statistics, job, rows)


def tally(
    statistics: Statistics, results: Iterable[Usable | RowProblem], on_progress: Callable[[int], None] = lambda _: None
) -> int:
    """Count every result; returns how many prompts differ, 2 standing for more too."""
    prompts: set[int | bytes] = set()  # two at most: whether there is another one is all that matters
    for result in results:
        if isinstance(result, RowProblem):
            statistics.add_problem(result)
        else:
            statistics.add(result.facts)
            if len(prompts) < 2:
                prompts.add(result.facts.prompt if result.example is None else result.example.prompt.tobytes())
        if statistics.rows % _PROGRESS_EVERY == 0:
            on_progress(statistics.rows)
    return len(prompts)


def _negated(rows: RowReader) -> Iterator[Row | RowProblem]:
    for row in rows:
        yield replace(row, number=-row.number) if isinstance(row, Row) else replace(row, row=-row.row)


def report_of(statistics: Statistics, job: AlignmentJob, rows: RowReader) -> DataReport:
    """rows: the reader that the counted rows came from, which knows how it read them."""
    read_as = rows.read_as.describe() if rows.read_as else ""
    return statistics.report(job, read_as=read_as, ignored_columns=rows.ignored_columns)


def require_usable(report: DataReport, max_bad_rows: int, *, validated: bool = False) -> None:
    """Raises AttemptError `dataset_invalid` when no row is usable, too many are not, or a file is damaged.

    validated: there is a file for validation; then no row of either file is none.
    """
    if report.cut_off:
        raise AttemptError("dataset_invalid", f"The file cannot be read past {report.cut_off}. Upload it again.")
    if report.bad > max_bad_rows or not report.used:
        shown = "; ".join(f"row {one.row}: {one.message} ({one.code})" for one in report.problems)
        raise AttemptError(
            "dataset_invalid",
            f"{report.bad} of {report.rows} rows cannot be used, data.max_bad_rows is {max_bad_rows}: "
            f"{shown or 'the file is empty'}. Correct them, or raise data.max_bad_rows to leave them out.",
        )
    if validated and report.overlap.held_out in (0, report.used):
        which = "data.train" if report.overlap.held_out else "data.validation"
        raise AttemptError("dataset_invalid", f"No row of {which} can be used: correct the file.")
