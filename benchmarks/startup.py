"""What a job costs beside its computing: the processes it starts, when, and their CPU seconds, `make bench-startup`.

    python benchmarks/startup.py --jobs 4

Small jobs of a few steps, one after the other, on a service as `plumbline up` starts it. The first one fills the
reference store; of the others, which find every pair there, it prints the medians.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the other modules, when run as a script

from api.cli.processes import free_port
from api.cli.stack import ONE_NODE, running_stack
from api.client import Client
from benchmarks.service_job import Record, follow, wait_until_free
from benchmarks.workload import LONGEST, make_workload
from service.settings import Settings

SAMPLE_S = 0.1  # what lives for less is not seen
LEAST_CPU_S = 0.1  # of a process that is shown


@dataclass
class Seen:
    """A process: when it was started, by the clock, its CPU seconds so far, and the last title it had."""

    started_at: float
    cpu_s: float = 0.0
    title: str = ""


class Watcher(threading.Thread):
    """Samples our descendants for as long as it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: dict[tuple[int, float], Seen] = {}

    def run(self) -> None:
        ours = psutil.Process()
        while True:
            for process in ours.children(recursive=True):
                try:
                    with process.oneshot():
                        started = process.create_time()
                        one = self.seen.setdefault((process.pid, started), Seen(started))
                        times = process.cpu_times()
                        one.cpu_s = times.user + times.system
                        one.title = title(process.cmdline()) or one.title
                except psutil.Error:  # ended
                    continue
            time.sleep(SAMPLE_S)

    def since(self, start: float) -> list[Seen]:
        """Those that were started after `start` and did something."""
        found = [one for one in list(self.seen.values()) if one.started_at > start and one.cpu_s >= LEAST_CPU_S]
        return sorted(found, key=lambda one: one.started_at)


def title(command: list[str]) -> str:
    """What a process is, in a word; empty while it is being started."""
    joined = " ".join(command).strip()
    if joined.startswith("ray::"):
        name = joined.removeprefix("ray::").split(".")[0].split(" ")[0]
        return "JobSupervisor" if name.startswith("_ray_internal_job_actor") else name
    return "driver" if joined.endswith("python -m workers.run") else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()

    watcher = Watcher()
    watcher.start()
    jobs: list[tuple[Record, list[Seen], float]] = []
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as directory:
        home = Path(directory)
        model = home / "storage" / "models" / "bench"
        work = make_workload(model, pairs=arguments.pairs, hidden=arguments.hidden, layers=arguments.layers)
        spec = {
            "model": str(work.model),
            "training": {"batch_size": 8, "precision": "float32"},
            "evaluation": {"held_out_fraction": 0, "pairs": 0},
            "serve": False,
        }
        with (
            running_stack(Settings(home=home, port=free_port()), ONE_NODE) as stack,
            Client(stack.url, stack.key) as client,
        ):
            rows = {"train": client.files.upload(work.rows).id, "max_length": LONGEST, "truncation": "error"}
            for _ in range(arguments.jobs):
                wait_until_free(stack.ray)
                posted = time.time()
                record = follow(client, client.jobs.create(spec | {"data": rows}).id)
                jobs.append((record, watcher.since(posted - 1), posted))
                print(f"... {record.wall_s:.1f} s, {record.start_up_s:.1f} s to the first step", flush=True)
    report(jobs[1:])


def report(jobs: list[tuple[Record, list[Seen], float]]) -> None:
    print(f"\n{len(jobs)} jobs; load average {os.getloadavg()[0]:.1f}\n")
    print("| process | starts, s after the POST | CPU s |\n|---|---|---|")
    starts, cpu = defaultdict(list), defaultdict(list)
    for _, seen, posted in jobs:
        for one in seen:
            starts[one.title or "other"].append(one.started_at - posted)
            cpu[one.title or "other"].append(one.cpu_s)
    for name in sorted(starts, key=lambda name: statistics.median(starts[name])):
        print(f"| {name} | {spread(starts[name])} | {spread(cpu[name])} |")
    totals = [sum(one.cpu_s for one in seen) for _, seen, _ in jobs]
    print(f"| all | | {spread(totals)} |")
    print(f"\nPOST to the first step: {spread([record.start_up_s for record, _, _ in jobs])} s; ", end="")
    print(f"to the published model: {spread([record.wall_s for record, _, _ in jobs])} s.")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} [{min(values):.1f}-{max(values):.1f}]"


if __name__ == "__main__":
    main()
