"""Two pools side by side: the wall time of a job against its stages alone, `make bench-overlap`.

    python benchmarks/overlap.py --rounds 3 --pairs 540

Each round runs, on two Ray nodes of this machine with one core each (a head beside them):
- the reference pass alone, from an empty store: a job of one step over all pairs, for whose scores the trainer waits,
  cancelled when the pass is through;
- training alone: the same job with every score in the store, which must start no scorer;
- the same beside a process that computes for nobody on the other core: what its steps take longer is the machine's;
- the reference pass alone again, with `--scorers` scorers and an empty store;
- the whole job from an empty store.
R is the scoring, T the training with what follows it (held-out pairs, export, publishing), both without the start of
their processes; the start-up is told apart. The reference has more layers than the policy, so that R is about T/2: of
one size, a step costs some four times a forward pass.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the other modules, when run as a script

from api.cli.processes import free_port
from api.cli.stack import TWO_POOLS, Stack, running_stack
from api.client import Client
from benchmarks.engine_side import usual_precision
from benchmarks.neighbour import neighbour
from benchmarks.service_job import Record, follow, scorers_started, wait_until_free
from benchmarks.workload import LONGEST, make_reference, make_workload
from service.settings import Settings
from service.spec import Storage

ALL = 65_536  # pairs of a step, more than there are


@dataclass(frozen=True)
class Round:
    reference: Record
    trained: Record
    beside_another: Record
    scaled: Record
    overlapped: Record
    scorers: int  # of the job whose pairs are all in the store

    @property
    def stages_s(self) -> tuple[float, float]:
        """R and T."""
        return self.reference.scoring_s, training_s(self.trained)

    @property
    def bar(self) -> float:
        """What the wall time beyond the start-up of training alone is of the longer stage."""
        return (self.overlapped.wall_s - self.trained.start_up_s) / max(self.stages_s)

    @property
    def against_longer(self) -> float:
        return self.overlapped.wall_s / (max(self.stages_s) + self.trained.start_up_s)

    @property
    def against_sum(self) -> float:
        return self.overlapped.wall_s / (sum(self.stages_s) + self.trained.start_up_s)

    @property
    def speed_up(self) -> float:
        return self.reference.scoring_s / self.scaled.scoring_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=540)
    parser.add_argument("--batch", type=int, default=16, help="pairs of a step")
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--reference-layers", type=int, default=8)
    parser.add_argument("--scorers", type=int, default=2, help="of the second reference pass alone")
    parser.add_argument("--precision", choices=["float32", "bf16"], default=usual_precision()[0])
    arguments = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # a core for each worker, whatever its node has
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as home:
        settings = Settings(home=Path(home), port=free_port())
        with running_stack(settings, TWO_POOLS, say=say) as stack:
            work = make_workload(
                stack.settings.storage_root / "models" / "bench",
                pairs=arguments.pairs,
                hidden=arguments.hidden,
                layers=arguments.layers,
            )
            say(f"{work.pairs} pairs, {work.tokens} tokens, {work.weights / 1e6:.1f} million weights")
            reference = make_reference(work, hidden=arguments.hidden, layers=arguments.reference_layers)
            with Client(stack.url, stack.key) as client:
                spec = job_spec(work.model, reference, client.files.upload(work.rows).id, arguments)
                rounds = [one_round(stack, client, spec, reference, arguments.scorers) for _ in range(arguments.rounds)]
    print(
        f"\n{work.pairs} pairs, {work.tokens:,} tokens (prompts once), batches of {arguments.batch}; policy of ", end=""
    )
    print(f"{work.weights / 1e6:.1f} million weights in {arguments.layers} layers, reference of ", end="")
    print(f"{arguments.reference_layers} layers; {arguments.precision}; load average {os.getloadavg()[0]:.1f}\n")
    report(rounds, arguments.scorers)


def say(text: str) -> None:
    print(f"... {text}", flush=True)


def job_spec(model: Path, reference: Path, file_id: str, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": str(model),
        "reference": str(reference),
        "data": {"train": file_id, "max_length": LONGEST, "truncation": "error"},
        "training": {"batch_size": arguments.batch, "precision": arguments.precision},
        "evaluation": {"pairs": 0},
        "serve": False,
    }


def one_round(stack: Stack, client: Client, spec: dict[str, Any], other: Path, scorers: int) -> Round:
    """other: the model that the process beside training runs."""

    def run(name: str, resources: dict[str, Any], *, empty: bool, alone: bool = False) -> Record:
        wait_until_free(stack.ray)
        if empty:
            shutil.rmtree(Storage(stack.settings.storage_root).reference_store, ignore_errors=True)
        asked = spec | {"resources": resources}
        if alone:
            asked["training"] = spec["training"] | {"batch_size": ALL}
        record = follow(client, client.jobs.create(asked).id, until_scored=alone)
        if record.planned["hits"] != (0 if empty else record.planned["pairs"]):
            raise SystemExit(f"{name}: {record.planned['hits']} of {record.planned['pairs']} pairs were in the store")
        detail = f"{record.scoring_s:.1f} scoring" if alone else f"{record.start_up_s:.1f} start-up"
        say(f"{name}: {record.wall_s:.1f} s, of them {detail}")
        return record

    more = {"reference": {"workers": scorers}}
    reference = run("reference alone", {}, empty=True, alone=True)
    before = scorers_started(stack.ray)
    trained = run("training alone", {}, empty=False)
    with neighbour(other):
        beside_another = run("training alone, beside another process", {}, empty=False)
    started = scorers_started(stack.ray) - before
    scaled = run(f"reference alone, {scorers} scorers", more, empty=True, alone=True)
    if scorers_started(stack.ray) - before - started != scorers:  # or the count above would prove nothing
        raise SystemExit("the Ray state API does not show the scorers")
    return Round(reference, trained, beside_another, scaled, run("both", {}, empty=True), started)


def training_s(record: Record) -> float:
    return record.wall_s - record.start_up_s


def report(rounds: Sequence[Round], scorers: int) -> None:
    rows = [
        ("R, reference pass alone", [r.reference.scoring_s for r in rounds]),
        ("T, training alone", [training_s(r.trained) for r in rounds]),
        ("start-up: POST to ready for the first step", [r.trained.start_up_s for r in rounds]),
        ("wall of training alone", [r.trained.wall_s for r in rounds]),
        ("wall of the job, both side by side", [r.overlapped.wall_s for r in rounds]),
        ("... its start-up", [r.overlapped.start_up_s for r in rounds]),
        ("... waiting for scores (policy_wait_s)", [r.overlapped.waited_s for r in rounds]),
        ("... its steps, of those of training alone", [r.overlapped.steps_s / r.trained.steps_s for r in rounds]),
        (
            "... those of training alone beside another process",
            [r.beside_another.steps_s / r.trained.steps_s for r in rounds],
        ),
        ("start of a scorer", [r.reference.stages["reference"] - r.reference.scoring_s for r in rounds]),
        ("**(wall - start-up) / max(R, T)**, bar 1.15", [r.bar for r in rounds]),
        ("wall / (max(R, T) + start-up)", [r.against_longer for r in rounds]),
        ("wall / (R + T + start-up)", [r.against_sum for r in rounds]),
        (f"speed-up of R by {scorers} scorers", [r.speed_up for r in rounds]),
    ]
    print("| seconds, or ratio | median |\n|---|---|")
    for name, values in rows:
        print(f"| {name} | {statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}] |")
    seen = ", ".join(str(r.scorers) for r in rounds)
    print(f"\nScorers that the jobs with every pair in the store started, by Ray's state API: {seen}.")


if __name__ == "__main__":
    main()
