"""A side of the engine's benchmarks: what it has to do, and how it is run in a process of its own."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.engine_shares import shares_of

BATCH = 8  # pairs of a step, and of a padded batch of the reference pass


@dataclass(frozen=True)
class Work:
    """What every side is told. `task`: reference or train."""

    task: str
    model: Path
    rows: Path
    precision: str
    checkpointing: bool


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usual_precision() -> tuple[str, str]:
    """The precision that this machine multiplies fastest, and why."""
    if torch.cuda.is_available():
        return "bf16", "a CUDA device"
    cpu = Path("/proc/cpuinfo")
    for flag, name in {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}.items():
        if cpu.exists() and flag in cpu.read_text():
            return "bf16", f"this CPU has {name}"
    return "float32", "no CUDA device, and a CPU without products of bfloat16"


def run_side(description: str | None, make_block: Callable[[Work], Callable[[], object]], *flags: str) -> None:
    """Read the command line, `flags` among it, and serve."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("task", choices=["reference", "train"])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--precision", choices=["float32", "bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--checkpointing", action="store_true")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    options = vars(parser.parse_args())
    torch.set_num_threads(options.pop("threads"))
    more = {name: options.pop(name) for name in [flag.removeprefix("--") for flag in flags]}
    serve(make_block(Work(**options), **more))


def serve(block: Callable[[], object]) -> None:
    """Run `block` whenever asked to and tell its seconds, or its `shares`. The first run, which also warms up, is not
    timed; it tells by how many MiB memory rose above what the loaded model takes."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here: loading may have had a higher one
    loaded = _memory_mib("VmRSS")
    block()
    _say(peak_mib=_memory_mib("VmHWM") - loaded)
    for asked in sys.stdin:
        if asked.strip() == "shares":
            _say(shares=shares_of(block))
            continue
        started = time.perf_counter()
        block()
        _say(seconds=time.perf_counter() - started)


def _memory_mib(name: str) -> float:
    """A line of the process's status, in KiB there."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def _say(**what: float | dict[str, float]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
