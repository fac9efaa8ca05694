"""Our engine against TRL's, in one run, block by block in turn: `make bench-engine`.

    python benchmarks/engine.py reference --profile uf --precision float32 --peer .venv-trl/bin/python

Prints for each side the median seconds of a block with their spread, real tokens a second (each prompt counted once, no
padding), the peak of memory over the loaded model, and our ratio, block against block; then the floor: the seconds that
the matrix products of the shared form take at this machine's own rate.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.engine_rows import MODEL, make_model, make_rows

HERE = Path(__file__).parent
ROOT = HERE.parent


class Side:
    def __init__(self, name: str, command: list[str], threads: int) -> None:
        self.name = name
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        self.seconds: list[float] = []
        self.peak_mib: float = self._heard()["peak_mib"]

    def block(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        self.seconds.append(self._heard()["seconds"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):  # the peer prints other things too
                found: dict[str, Any] = json.loads(line)
                if found.keys() & {"seconds", "peak_mib"}:
                    return found
        raise SystemExit(f"{self.name} ended")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["reference", "train"])
    parser.add_argument("--profile", choices=["uf", "lp"], default="uf")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="bf16")
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-trl" / "bin" / "python")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        model, rows = Path(directory) / "model", Path(directory) / "rows.jsonl"
        make_model(model)
        make_rows(rows, arguments.profile, arguments.rows)
        options = [arguments.task, "--model", str(model), "--rows", str(rows), "--precision", arguments.precision]
        options += ["--threads", str(arguments.threads)]
        if arguments.task == "train":
            options.append("--checkpointing")
        peer = [str(arguments.peer.absolute()), str(HERE / "engine_trl.py"), *options]
        sides = [
            Side("ours", [sys.executable, "-m", "benchmarks.engine_ours", *options], arguments.threads),
            Side("trl", peer, arguments.threads),
            Side("trl, compact", [*peer, "--compact"], arguments.threads),
        ]
        for _ in range(arguments.rounds):
            for side in sides:
                side.block()
        for side in sides:
            side.close()
        pairs = 8 if arguments.task == "train" else arguments.rows
        report(sides, tokens_of(rows, pairs), floor(rows, pairs, arguments))


def report(sides: list[Side], tokens: tuple[int, int], least: float) -> None:
    shared = sum(tokens)
    print(f"load average {os.getloadavg()[0]:.1f}; {shared} tokens a block; floor {least:.2f} s")
    print("| side | seconds a block | tokens/s | peak MiB | ours is |\n|---|---|---|---|---|")
    ours = sides[0]
    for side in sides:
        ratios = [theirs / mine for theirs, mine in zip(side.seconds, ours.seconds, strict=True)]
        rate = f"{shared / statistics.median(side.seconds):,.0f}"
        print(f"| {side.name} | {spread(side.seconds)} | {rate} | {side.peak_mib:,.0f} | {spread(ratios)} |")
    print(f"ours reaches {least / statistics.median(ours.seconds):.0%} of the floor")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}]"


def tokens_of(rows: Path, pairs: int) -> tuple[int, int]:
    """Of the first pairs: tokens of prompts, and of answers with their ends."""
    found = [json.loads(line) for line in rows.read_text().splitlines()[:pairs]]
    answers = [row[name] for row in found for name in ("chosen", "rejected")]
    return sum(len(row["prompt"].split()) for row in found), sum(len(answer.split()) + 1 for answer in answers)


def floor(rows: Path, pairs: int, arguments: argparse.Namespace) -> float:
    """Seconds of the matrix products alone: weights times tokens (prompts once), the head where answers are scored;
    three times that with backward, four with a recomputed forward."""
    torch.set_num_threads(arguments.threads)
    prompts, answers = tokens_of(rows, pairs)
    hidden, heads, width = MODEL["hidden_size"], MODEL["num_attention_heads"], MODEL["head_dim"]
    key_value = MODEL["num_key_value_heads"] * width
    layer = hidden * (2 * heads * width + 2 * key_value) + 3 * hidden * MODEL["intermediate_size"]
    flops = 2 * (prompts + answers) * layer * MODEL["num_hidden_layers"] + 2 * answers * hidden * MODEL["vocab_size"]
    return flops * (4 if arguments.task == "train" else 1) / matrix_rate(arguments.precision)


def matrix_rate(precision: str) -> float:
    """FLOP/s of a product of the model's own shape."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(4096, 512).to(dtype), torch.randn(1536, 512).to(dtype)
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        seconds.append(time.perf_counter() - started)
    return 2 * 4096 * 512 * 1536 / min(seconds)


if __name__ == "__main__":
    main()
