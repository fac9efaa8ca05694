"""The reference pass and the training step on one CUDA GPU, in under ten minutes:

    make bench-gpu      (or: python benchmarks/gpu.py; on a CPU, to see that it runs: python benchmarks/gpu.py --tiny)

A Qwen3-like model of 0.6 billion random weights, bf16 with float32 weights in training, gradient checkpointing. The
peer is TRL where it can be imported, else a plain loop over padded rows (`benchmarks.engine_plain`). We run with two
sizes of micro-batches, since launching kernels may bound the smaller one, and with the larger one compiled too. Each
runs in this process beside the peer, block by block in turn. Needs nothing but torch, transformers and this repository.

Utilisation is of the model's floating-point operations, as `benchmarks.engine_rows.model_flops` counts them (three
forward passes for a training step: what checkpointing repeats is not in it), in the time taken, of the rate of one
large product in the same run.
"""

import argparse
import gc
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import engine_ours
from benchmarks.engine_rows import PROFILES, SMALL, Sizes, make_model, make_rows, model_flops, tokens_of
from benchmarks.engine_side import BATCH, Work, device

LARGE: Sizes = SMALL | {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
LARGE_TOKENS = 16_384
TINY: Sizes = SMALL | {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


MakeBlock = Callable[[Work], Callable[[], object]]


@dataclass(frozen=True)
class Size:
    """Of a block: its tokens, and the seconds that its floating-point operations take at the least."""

    tokens: int
    least_s: float


@dataclass
class Side:
    name: str
    block: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0  # above what was allocated before the block
    fits: bool = True

    def run(self) -> None:
        """Once, unless it did not fit before."""
        if not self.fits:
            return
        try:
            self._run()
        except torch.OutOfMemoryError:
            self.fits = False
            gc.collect()
            torch.cuda.empty_cache()

    def _run(self) -> None:
        on_gpu = device().type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        started = time.perf_counter()
        self.block()
        if on_gpu:
            torch.cuda.synchronize()
            self.peak_mib = max(self.peak_mib, (torch.cuda.max_memory_allocated() - before) / 2**20)
        self.seconds.append(time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few rows, on whatever device there is")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # the peer would spread itself over all there are
    if not arguments.tiny and device().type != "cuda":
        raise SystemExit("benchmarks/gpu.py measures a CUDA GPU, and torch sees none here. --tiny shows that it runs.")
    started = time.perf_counter()
    sizes, profiles, rounds = (TINY, ["lp"], 1) if arguments.tiny else (LARGE, list(PROFILES), arguments.rounds)
    rows_per_pass = 1 if arguments.tiny else 8 * BATCH
    peer, make_peer = find_peer()
    large = partial(engine_ours.make_block, micro_batch_tokens=LARGE_TOKENS)
    name = torch.cuda.get_device_name() if device().type == "cuda" else "a CPU, which this does not measure"
    side = 512 if arguments.tiny else 8192
    rate = matrix_rate(side)
    print(
        f"{name}; torch {torch.__version__}; {rate / 1e12:.1f} TFLOP/s in a bf16 product of side {side}; peer: {peer}"
    )
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model"
        make_model(model, sizes)
        for profile in profiles:
            rows = Path(directory) / f"{profile}.jsonl"
            make_rows(rows, profile, rows_per_pass, int(sizes["vocab_size"]))
            for task, pairs in (("reference", rows_per_pass), ("train", min(BATCH, rows_per_pass))):
                work = Work(task, model, rows, "bf16", checkpointing=task == "train")
                tokens = tokens_of(rows, pairs)
                print(f"\n{task}, profile {profile}: {pairs} pairs, {sum(tokens)} tokens")
                compare(
                    make_side(peer, make_peer, work),
                    {
                        f"ours, {engine_ours.TOKENS:,} tokens a batch": engine_ours.make_block,
                        f"ours, {LARGE_TOKENS:,}": large,
                        f"ours, {LARGE_TOKENS:,}, compiled": partial(large, compiled=True),
                    },
                    work,
                    rounds,
                    Size(sum(tokens), model_flops(task, sizes, *tokens) / rate),
                )
                gc.collect()  # the peer, which may refer to itself
                torch.cuda.empty_cache()
    print(f"\nin {time.perf_counter() - started:.0f} s")


def find_peer() -> tuple[str, MakeBlock]:
    if importlib.util.find_spec("trl"):
        from benchmarks import engine_trl

        return "TRL", engine_trl.make_block
    from benchmarks import engine_plain

    return "plain padded loop (there is no TRL here)", engine_plain.make_block


def make_side(name: str, make_block: MakeBlock, work: Work) -> Side:
    try:
        return Side(name, make_block(work))
    except torch.OutOfMemoryError:
        return Side(name, lambda: None, fits=False)


def compare(peer: Side, ours: Mapping[str, MakeBlock], work: Work, rounds: int, size: Size) -> None:
    """Each of ours beside the peer, in turn, so that no more than two models are on the device."""
    print("| side | seconds a block | tokens/s | peak MiB more | utilisation | times the peer |")
    print("|---|---|---|---|---|---|")
    for index, (name, make_block) in enumerate(ours.items()):
        side = make_side(name, make_block, work)
        measure([peer, side], rounds)
        if index == 0:
            print(row(peer, size, None))
        print(row(side, size, peer))
        del side
        gc.collect()
        torch.cuda.empty_cache()


def measure(sides: list[Side], rounds: int) -> None:
    for side in sides:
        for _ in range(min(2, rounds)):  # the first compiles kernels and makes the optimizer's state
            side.run()
        side.seconds.clear()
        side.peak_mib = 0.0
    for _ in range(rounds):
        for side in sides:
            side.run()


def row(side: Side, size: Size, peer: Side | None) -> str:
    if not side.fits:
        return f"| {side.name} | out of memory | | | | |"
    median = statistics.median(side.seconds)
    rates = f"{size.tokens / median:,.0f} | {side.peak_mib:,.0f} | {size.least_s / median:.1%}"
    ratio = ""
    if peer is not None and peer.fits:
        ratio = spread([theirs / mine for theirs, mine in zip(peer.seconds, side.seconds, strict=True)])
    return f"| {side.name} | {spread(side.seconds)} | {rates} | {ratio} |"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} [{min(values):.3f}-{max(values):.3f}]"


def matrix_rate(side: int) -> float:
    """FLOP/s of a square bf16 product."""
    left, right = (torch.randn(side, side, device=device(), dtype=torch.bfloat16) for _ in range(2))
    product = Side("product", lambda: left @ right)
    for _ in range(20):
        product.run()
    return 2 * side**3 / min(product.seconds)


if __name__ == "__main__":
    main()
