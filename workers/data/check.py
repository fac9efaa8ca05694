"""The data report of a file, without a job: `python -m workers.data.check FILE --job JSON [--tokenizer DIR]`.

`plumbline check` runs this as a process of its own. Standard output is JSON Lines: `{"rows": n}` now and then, and at
the end one of `{"report": DataReport}` and `{"error": {"code": ..., "message": ...}}`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from service.spec import AlignmentJob
from workers.data.prepare import inspect
from workers.data.tokenizer import load_tokenizer
from workers.errors import AttemptError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--job", required=True, help="an AlignmentJob as JSON; its data section and losses matter")
    parser.add_argument("--tokenizer", type=Path, help="directory of a model; without it lengths are characters")
    arguments = parser.parse_args()
    job = AlignmentJob.model_validate_json(arguments.job)
    try:
        tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else None
        report = inspect(job, arguments.file, tokenizer, lambda rows: _say(rows=rows))
    except AttemptError as error:
        _say(error={"code": error.code, "message": error.message})
        return 1
    _say(report=report.model_dump(mode="json"))
    return 0


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
