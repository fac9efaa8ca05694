"""How a side of the engine's benchmarks is run: it says what its memory needs, then makes one block a line it reads."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path


def parser(description: str | None = None) -> argparse.ArgumentParser:
    """What the driver tells every side."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("task", choices=["reference", "train"])
    made.add_argument("--model", type=Path, required=True)
    made.add_argument("--rows", type=Path, required=True)
    made.add_argument("--precision", choices=["float32", "bf16"], required=True)
    made.add_argument("--threads", type=int, required=True)
    made.add_argument("--checkpointing", action="store_true")
    return made


def serve(block: Callable[[], object]) -> None:
    """Run `block` whenever asked to and tell its seconds. The first run, which also warms up, is not timed; it tells
    by how many MiB memory rose above what the loaded model takes."""
    loaded = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    block()
    _say(peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - loaded)
    for _ in sys.stdin:
        started = time.perf_counter()
        block()
        _say(seconds=time.perf_counter() - started)


def _say(**what: float) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
