"""Reads what W&B's client wrote offline: LevelDB's log format, of W&B's own protobuf records."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32 * 1024, 7
_FULL, _LAST = 1, 4
WAIT_S = 20


def records(file: Path) -> list[Any]:
    """Each record of one run's file, once the run's end is among them: the client does not wait for its own process to
    have written it."""
    deadline = time.monotonic() + WAIT_S
    while True:
        found = list(_records(file.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < deadline, f"the run has not ended in {file}"
        time.sleep(0.05)


def _records(content: bytes) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    at, whole = _HEADER, b""  # the file's own header is as long as a record's
    while at + _HEADER <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if at + _HEADER + size > len(content):
            return  # it is being written
        whole += content[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def files(directory: Path, run_id: str) -> list[Path]:
    """Of a run, one for each time that it was opened, oldest first: their directories are named by the time."""
    return sorted(directory.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))


def history(directory: Path, run_id: str) -> list[dict[str, Any]]:
    """Rows as W&B's server keeps them: of each step the first that came."""
    rows: dict[int, dict[str, Any]] = {}
    for file in files(directory, run_id):
        for record in records(file):
            if record.WhichOneof("record_type") == "history":
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                if row["_step"] > max(rows, default=0):
                    rows[row["_step"]] = row
    return list(rows.values())


def state(directory: Path, run_id: str) -> tuple[str | None, int | None]:
    """What the summary says the job has become, and the run's exit code; of the last time that it was opened."""
    said: dict[str, Any] = {}
    code = None
    for record in records(files(directory, run_id)[-1]):
        match record.WhichOneof("record_type"):
            case "summary":
                said |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.summary.update}
            case "exit":
                code = record.exit.exit_code
    return said.get("plumbline/state"), code
