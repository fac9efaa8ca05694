"""A look at a file before any job: `python -m workers.data.preview`, with a `PreviewOrder` as JSON on standard input.

The control plane runs it as a process of its own, because the file may be hostile: memory and processor time are
limited here, wall time by whoever started it. One line of JSON comes out: `{"preview": DataPreview}`, or
`{"error": {"code": ..., "message": ...}}` for what the user can correct.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.spec import AlignmentJob
from service.spec.data_preview import DataPreview, PreviewLimits, PreviewOrder, SampleRow
from service.spec.rows import Row, RowNeeds, RowProblem, RowReader, read_rows
from workers.data.encode import TokenEncoder, Usable, approximate_size, measure
from workers.data.example_file import kl_needs_prompts
from workers.data.pool import map_chunks
from workers.data.prepare import report_of, tally
from workers.data.samples import text_sample, token_sample
from workers.data.statistics import Statistics
from workers.data.tokenizer import load_tokenizer
from workers.errors import AttemptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN_ROWS = 8
_STARTING_CPU_S = 60  # for imports and the tokenizer, on a slow machine


class _Start:
    """The rows at the start of a file: so many, or as many as can be looked at in time."""

    def __init__(self, rows: RowReader, limits: PreviewLimits) -> None:
        self._rows = rows
        self._limits = limits
        self.complete = True

    def __iter__(self) -> Iterator[Row | RowProblem]:
        deadline = time.monotonic() + self._limits.seconds
        for number, row in enumerate(self._rows):
            if number >= self._limits.rows or (number and time.monotonic() > deadline):
                self.complete = False
                return
            yield row


class _Sampler:
    """Encodes rows, and keeps the first usable ones to be shown."""

    def __init__(self, encoder: TokenEncoder | None, tokenizer: "PreTrainedTokenizerBase | None") -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self.samples: list[SampleRow] = []

    def __call__(self, chunk: Sequence[Row | RowProblem]) -> list[Usable | RowProblem]:
        results = self._encoder(chunk) if self._encoder else measure(chunk)
        for row, result in zip(chunk, results, strict=True):
            if len(self.samples) == SHOWN_ROWS:
                break
            if isinstance(row, Row) and isinstance(result, Usable):
                self.samples.append(token_sample(result, self._tokenizer) if self._tokenizer else text_sample(row))
        return results


def preview(
    job: AlignmentJob, source: Path, tokenizer: "PreTrainedTokenizerBase | None", limits: PreviewLimits
) -> DataPreview:
    """Without a tokenizer it counts characters. Raises AttemptError as preparing the job would."""
    rows = read_rows(source, RowNeeds.of(job))
    start = _Start(rows, limits)
    encoder = TokenEncoder(tokenizer, job.data) if tokenizer else None
    sampler = _Sampler(encoder, tokenizer)
    statistics = Statistics(has_tokens=encoder is not None, exact=encoder is None or encoder.exact)
    num_prompts = tally(statistics, map_chunks(sampler, start, 1, approximate_size))
    if job.needs_kl_answers and num_prompts == 1 and start.complete:
        raise kl_needs_prompts()
    return DataPreview(report=report_of(statistics, job, rows), complete=start.complete, samples=sampler.samples)


def main() -> int:
    order = PreviewOrder.model_validate_json(sys.stdin.buffer.read())
    _limit(order.limits)
    try:
        tokenizer = load_tokenizer(Path(order.tokenizer)) if order.tokenizer else None
        found = preview(AlignmentJob.model_validate(order.job), Path(order.file), tokenizer, order.limits)
    except AttemptError as error:
        said = json.dumps({"error": {"code": error.code, "message": error.message}})
    except MemoryError:
        said = json.dumps({"error": {"code": "preview_too_large", "message": "The rows need too much memory."}})
    else:
        said = f'{{"preview": {found.model_dump_json()}}}'
    sys.stdout.write(said + "\n")
    return 0


def _limit(limits: PreviewLimits) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    seconds = _STARTING_CPU_S + 2 * math.ceil(limits.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))  # libraries try whether they can write
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
