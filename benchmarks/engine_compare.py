"""Our engine's side against TRL's, each in a process of its own, block by block in turn.

Prints for each side the median seconds of a block with their spread, real tokens a second (each prompt counted once, no
padding), the peak of memory over the loaded model, and our ratio, block against block; then the floor: the seconds that
`benchmarks.engine_rows.model_flops`, the matrix work of the shared form, take at this machine's own rate. With --shares
also where the time of our block goes, by torch's profiler.
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

from benchmarks.engine_rows import MODELS, PROFILES, Sizes, make_model, make_rows, model_flops, tokens_of
from benchmarks.engine_side import BATCH, usual_precision

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = {"trl": [], "compact": ["--compact"]}  # TRL as it comes, and scoring completions only


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
        sys.stderr.write(f"{self.name}: {self.seconds[-1]:.2f} s\n")

    def shares(self) -> dict[str, float]:
        """Of the time of one block more, by what it goes into."""
        assert self._process.stdin
        self._process.stdin.write("shares\n")
        self._process.stdin.flush()
        found: dict[str, float] = self._heard()["shares"]
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):  # the peer prints other things too
                found: dict[str, Any] = json.loads(line)
                if found.keys() & {"seconds", "peak_mib", "shares"}:
                    return found
        raise SystemExit(f"{self.name} ended")


def main(task: str, description: str | None) -> None:
    """task: reference or train."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", choices=MODELS, default="S", help="42 or 164 million random weights")
    parser.add_argument("--profile", choices=PROFILES, nargs="+", default=list(PROFILES))
    parser.add_argument(
        "--precision", choices=["float32", "bf16"], help="default: bf16 where the machine is fast in it"
    )
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-trl" / "bin" / "python", help="a python with TRL")
    parser.add_argument("--against", choices=PEERS, nargs="+", default=list(PEERS), help="compact: the fair opponent")
    parser.add_argument("--compiled", action="store_true", help="ours with `training.compile`")
    parser.add_argument("--shares", action="store_true", help="profile a block of ours and print where its time goes")
    parser.add_argument("--rows", type=int, default=16, help="pairs of a reference pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    precision, why = usual_precision()
    if arguments.precision:
        precision, why = arguments.precision, "as asked"
    print(f"precision {precision}: {why}")
    torch.set_num_threads(arguments.threads)
    pairs = BATCH if task == "train" else max(arguments.rows, BATCH)
    sizes = MODELS[arguments.model]
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model"
        make_model(model, sizes)
        for profile in arguments.profile:
            rows = Path(directory) / f"{profile}.jsonl"
            make_rows(rows, profile, pairs, int(sizes["vocab_size"]))
            options = [task, "--model", str(model), "--rows", str(rows), "--precision", precision]
            options += ["--threads", str(arguments.threads)] + ["--checkpointing"] * (task == "train")
            sides = make_sides(options, arguments)
            for _ in range(arguments.rounds):
                for side in sides:
                    side.block()
            shares = sides[0].shares() if arguments.shares else {}
            for side in sides:
                side.close()
            tokens = tokens_of(rows, pairs)
            floor = model_flops(task, sizes, *tokens) / matrix_rate(precision, sizes)
            print(f"\n{task}, model {arguments.model}, profile {profile}, {precision}")
            report(sides, sum(tokens), floor)
            if task == "train":
                again = f"{4 / 3 * floor / statistics.median(sides[0].seconds):.0%}"
                print(f"... {again} with the forward pass that checkpointing makes again")
            if shares:
                print("where our time goes: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))


def make_sides(options: list[str], arguments: argparse.Namespace) -> list[Side]:
    peer = [str(arguments.peer.absolute()), str(HERE / "engine_trl.py"), *options]
    own = [sys.executable, "-m", "benchmarks.engine_ours", *options, *["--compiled"] * arguments.compiled]
    ours = Side("ours, compiled" if arguments.compiled else "ours", own, arguments.threads)
    return [ours, *(Side(name, [*peer, *PEERS[name]], arguments.threads) for name in arguments.against)]


def report(sides: list[Side], shared: int, least: float) -> None:
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


def matrix_rate(precision: str, sizes: Sizes) -> float:
    """FLOP/s of a product of the model's own shape."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    left, right = torch.randn(4096, hidden).to(dtype), torch.randn(inner, hidden).to(dtype)
    seconds = []
    for _ in range(100):  # for seconds: beside others on a host, a fifth of one may be a slow one
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        seconds.append(time.perf_counter() - started)
    return 2 * 4096 * hidden * inner / min(seconds)
