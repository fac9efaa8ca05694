"""The prepare stage: rows of the training file to a file of tokenised pairs, every row accounted for."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from service.spec import AlignmentJob
from service.spec.rows import Row, RowError, RowNeeds, RowProblem, read_rows
from workers.data.examples import Example, write_examples
from workers.data.tokenize import RowTokenizer
from workers.errors import AttemptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 20
_PROGRESS_EVERY = 1000


@dataclass(frozen=True)
class DataReport:
    """What became of the rows. Token counts are over used rows."""

    rows: int
    used: int
    bad: int
    truncated: int
    prompt_tokens: int
    answer_tokens: int
    longest: int
    problems: list[dict[str, Any]]  # the first 20


def prepare(
    job: AlignmentJob,
    source: Path,
    target: Path,
    tokenizer: "PreTrainedTokenizerBase",
    on_progress: Callable[[int], None],
) -> DataReport:
    """Tokenise `source` into `target` (see `workers.data.examples`); a second call with the same target reuses it.

    Raises AttemptError `dataset_invalid` when no row is usable or more than `data.max_bad_rows` are not.
    """
    report_path = target.with_suffix(".json")
    if report_path.exists():  # written last, so the pairs are whole
        return DataReport(**json.loads(report_path.read_text()))
    target.parent.mkdir(parents=True, exist_ok=True)

    encode = RowTokenizer(tokenizer, job.data.max_length, job.data.truncation)
    problems: list[RowProblem] = []
    counts = {"rows": 0, "prompt_tokens": 0, "answer_tokens": 0, "longest": 0}

    def examples() -> Iterator[Example]:
        for row in read_rows(source, RowNeeds.of(job)):
            counts["rows"] += 1
            if counts["rows"] % _PROGRESS_EVERY == 0:
                on_progress(counts["rows"])
            example = _encode(row, encode)
            if isinstance(example, RowProblem):
                problems.append(example)
                continue
            counts["prompt_tokens"] += len(example.prompt)
            counts["answer_tokens"] += sum(len(answer.ids) for answer in example.answers)
            counts["longest"] = max(counts["longest"], example.max_length)
            yield example

    used = write_examples(target, examples())
    if problems and problems[-1].fatal:
        last = problems[-1]
        raise AttemptError(
            "dataset_invalid", f"The file cannot be read past row {last.row}: {last.message}. Upload it again."
        )
    if len(problems) > job.data.max_bad_rows or not used:
        shown = "; ".join(f"row {p.row}: {p.message} ({p.code})" for p in problems[:_SHOWN])
        raise AttemptError(
            "dataset_invalid",
            f"{len(problems)} of {counts['rows']} rows cannot be used, data.max_bad_rows is {job.data.max_bad_rows}: "
            f"{shown or 'the file is empty'}. Correct them, or raise data.max_bad_rows to leave them out.",
        )
    report = DataReport(
        used=used,
        bad=len(problems),
        truncated=encode.num_truncated,
        problems=[asdict(p) for p in problems[:_SHOWN]],
        **counts,
    )
    temporary = report_path.with_name(f".{report_path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(report)))
    temporary.replace(report_path)
    return report


def _encode(row: Row | RowProblem, encode: RowTokenizer) -> Example | RowProblem:
    if isinstance(row, RowProblem):
        return row
    try:
        return encode(row)
    except RowError as error:
        return RowProblem(row.number, error.code, str(error), error.field)
    except (jinja2.TemplateError, ValueError) as error:  # templates refuse, say, two user turns in a row
        return RowProblem(row.number, "template_refused", f"the model's chat template refuses the dialogue: {error}")
