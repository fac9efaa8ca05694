"""The rows that are kept out of training, as text: what evaluations ask models afterwards."""

import json
import os
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from service.spec import AlignmentJob
from service.spec.rows import Row, RowNeeds, read_rows


def write_held_out(job: AlignmentJob, numbers: Collection[int], source: Path, validation: Path | None, to: Path) -> int:
    """Write the rows with these numbers, in the order of the files, as JSON Lines of row, prompt and answers; return
    how many. Rows of the validation file have negative numbers. A second call finds it done."""
    if to.exists():
        return sum(1 for _ in to.open("rb"))
    wanted = set(numbers)
    temporary = to.with_name(f".{to.name}.{os.getpid()}")
    count = 0
    with temporary.open("w", encoding="utf-8") as file:
        for number, row in _rows(job, source, validation) if wanted else ():
            if number in wanted:
                wanted.remove(number)  # a pair that is split makes two rows with one number and one prompt
                told = {"row": number, "prompt": row.prompt, "answers": list(row.answers)}
                file.write(json.dumps(told, ensure_ascii=False) + "\n")
                count += 1
            if not wanted:
                break
    temporary.replace(to)
    return count


def _rows(job: AlignmentJob, source: Path, validation: Path | None) -> Iterator[tuple[int, Row]]:
    needs = RowNeeds.of(job)
    train = ((row.number, row) for row in read_rows(source, needs) if isinstance(row, Row))
    measured = read_rows(validation, needs) if validation else ()
    return chain(train, ((-row.number, row) for row in measured if isinstance(row, Row)))
