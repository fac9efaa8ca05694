"""How a side of the engine's benchmarks is run: it says what its memory needs, then makes one block a line it reads."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path


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
