"""Twelve jobs over losses and betas on one dataset, against twelve runs of TRL: `make bench-sweep`.

    python benchmarks/sweep.py --pairs 160 --peer .venv-trl/bin/python

Ours are POSTed at once to a service that runs, on one node like `plumbline up`, as many jobs at one time as there are
cores, each with its share of the threads. The peer's runs, each with all threads, are processes of their own, one after
the other: half of them before ours, half after, with no service beside them. Both sides have the same weights, tokens,
batches and steps; both keep float32 weights, and neither recomputes activations. The peer's runs share one cache
directory, as a user's do, in which TRL may find the reference log-probs of a run before.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the other modules, when run as a script

from api.cli.processes import free_port
from api.cli.stack import ONE_NODE, running_stack
from api.client import Client
from benchmarks.engine_side import usual_precision
from benchmarks.service_job import Record, follow
from benchmarks.workload import LONGEST, Workload, make_workload
from service.settings import Settings

ROOT = Path(__file__).parents[1]
LOSSES = ("sigmoid", "hinge", "ipo", "apo_zero")
BETAS = (0.05, 0.1, 0.3)
FIRST_LOSS_TOLERANCE = 0.02  # policy and reference are equal then, up to bfloat16: the loss and beta show in it

Point = tuple[str, float]  # loss and beta


@dataclass(frozen=True)
class PeerRun:
    """In seconds; `wall_s` is the process from start to end."""

    wall_s: float
    precompute_s: float
    train_s: float
    first_loss: float


@dataclass(frozen=True)
class Ours:
    """`wall_s`: the first POST to the last job's end. `service_s`: the start of the service, which is not in it."""

    service_s: float
    wall_s: float
    records: list[Record]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8, help="pairs of a step")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--jobs", type=int, default=len(LOSSES) * len(BETAS), help="take only the first of them")
    parser.add_argument(
        "--at-once",
        type=int,
        default=os.cpu_count() or 1,
        help="the service's max_running_jobs, which share the threads: one starts while another computes",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precision", choices=["float32", "bf16"], default=usual_precision()[0])
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-trl" / "bin" / "python")
    parser.add_argument("--compact", action="store_true", help="the peer scores completions only, as it does on a GPU")
    arguments = parser.parse_args()
    if not arguments.peer.exists():
        raise SystemExit(f"there is no {arguments.peer}: make .venv-trl/.installed, or give --peer")

    points = list(product(LOSSES, BETAS))[: arguments.jobs]
    half = len(points) // 2
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as directory:
        home = Path(directory)
        work = make_workload(
            home / "storage" / "models" / "bench",
            pairs=arguments.pairs,
            hidden=arguments.hidden,
            layers=arguments.layers,
        )
        peers = [peer_run(home, work, point, arguments) for point in points[:half]]
        ours = our_sweep(home, work, points, arguments)
        peers += [peer_run(home, work, point, arguments) for point in points[half:]]
    check_same(points, ours.records, peers)
    print(f"\n{len(points)} points; {work.pairs} pairs, {work.tokens:,} tokens (prompts once), batches of ", end="")
    print(
        f"{arguments.batch}; {work.weights / 1e6:.1f} million weights, {arguments.precision}, {arguments.threads} ",
        end="",
    )
    print(f"threads; {arguments.at_once} job(s) at once; load average at the end {os.getloadavg()[0]:.1f}\n")
    report(ours, peers)


def say(text: str) -> None:
    print(f"... {text}", flush=True)


def our_sweep(home: Path, work: Workload, points: Sequence[Point], arguments: argparse.Namespace) -> Ours:
    settings = Settings(home=home, port=free_port(), max_running_jobs=arguments.at_once)
    started = time.perf_counter()
    with running_stack(settings, ONE_NODE, say=say) as stack, Client(stack.url, stack.key) as client:
        service_s = time.perf_counter() - started
        file_id = client.files.upload(work.rows).id
        started = time.perf_counter()
        ids = [client.jobs.create(job_spec(work, file_id, point, arguments)).id for point in points]
        with ThreadPoolExecutor(len(ids)) as threads:
            records = list(threads.map(lambda job_id: followed(client, job_id, started), ids))
        return Ours(service_s, time.perf_counter() - started, records)


def followed(client: Client, job_id: str, started: float) -> Record:
    record = follow(client, job_id)
    loss = record.job["spec"]["losses"][0]
    say(f"ours, {(loss['type'], loss['beta'])}: ready {time.perf_counter() - started:.1f} s after the first POST")
    return record


def job_spec(work: Workload, file_id: str, point: Point, arguments: argparse.Namespace) -> dict[str, Any]:
    pool = {"cpus_per_worker": max(1, arguments.threads // arguments.at_once)}
    return {
        "model": str(work.model),
        "data": {"train": file_id, "max_length": LONGEST, "truncation": "error"},
        "losses": [{"type": point[0], "beta": point[1]}],
        "training": {
            "batch_size": arguments.batch,
            "learning_rate": arguments.learning_rate,
            "schedule": "linear",
            "warmup_ratio": 0,
            "precision": arguments.precision,
        },
        "evaluation": {"held_out_fraction": 0, "pairs": 0},  # TRL measures none
        "resources": {"policy": pool, "reference": pool},
        "serve": False,
    }


def peer_run(home: Path, work: Workload, point: Point, arguments: argparse.Namespace) -> PeerRun:
    command = [str(arguments.peer.absolute()), str(ROOT / "benchmarks" / "sweep_trl.py")]
    given = {"model": work.model, "rows": work.rows, "output": home / "peer", "loss": point[0], "beta": point[1]}
    given |= {name: getattr(arguments, name) for name in ("batch", "learning_rate", "precision", "threads")}
    command += [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    command += ["--compact"] if arguments.compact else []
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "HF_HOME": str(home / "peer-cache")}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"the peer failed:\n{done.stderr[-2000:]}")
    run = PeerRun(wall_s, **json.loads(done.stdout.splitlines()[-1]))
    say(f"TRL, {point}: {wall_s:.1f} s, of them {run.precompute_s:.1f} references, {run.train_s:.1f} training")
    return run


def check_same(points: Sequence[Point], records: Sequence[Record], peers: Sequence[PeerRun]) -> None:
    """SystemExit if the first losses show that the sides were not asked for the same."""
    for point, record, peer in zip(points, records, peers, strict=True):
        loss = record.metrics[0]["values"]["loss"]
        if not math.isclose(loss, peer.first_loss, rel_tol=FIRST_LOSS_TOLERANCE):
            raise SystemExit(f"{point}: the first loss is {loss:.4f} here and {peer.first_loss:.4f} in TRL")


def report(ours: Ours, peers: Sequence[PeerRun]) -> None:
    records = ours.records
    ends = sorted(record.job["finished_at"] for record in records)
    each = [records[0].since_post(ends[0])]
    each += [records[0].since_post(b) - records[0].since_post(a) for a, b in pairwise(ends)]
    stages = [max(r.stages["reference"], r.stages["train"]) for r in records]  # they start at one time
    peer_engine = [peer.precompute_s + peer.train_s for peer in peers]
    rows = [
        ("wall time", [ours.wall_s], each, [peer.wall_s for peer in peers]),
        ("reference and train stages, with the start of their processes", stages, stages, peer_engine),
    ]
    print("| seconds | ours | a job | TRL | a run | ours is |\n|---|---|---|---|---|---|")
    for name, total, jobs, runs in rows:
        times = f"{sum(runs) / sum(total):.2f}"
        print(f"| {name} | {sum(total):.1f} | {spread(jobs)} | {sum(runs):.1f} | {spread(runs)} | {times} |")
    hits = sum(not r.planned["to_score"] for r in records)
    found = sum(peer.precompute_s < 0.05 * peers[0].precompute_s for peer in peers)
    print(
        f"\nNot in these times: the start of the service, {ours.service_s:.1f} s. Reference log-probs were all there ",
        end="",
    )
    print(f"for {hits} of {len(records)} jobs of ours and for {found} of {len(peers)} runs of TRL (its cache).")


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} [{min(values):.1f}-{max(values):.1f}]"


if __name__ == "__main__":
    main()
