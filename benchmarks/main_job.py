"""How long the main job takes, stage by stage, and how much of it is fixed overhead: POST to the first training step.

    make bench            (or: python benchmarks/main_job.py --runs 3)

Starts the whole product in a temporary home (two pools on this machine), then runs the same small job several times
on real human preference pairs. The first run fills the reference store, the second finds every pair in it; each of
the others trains with another seed. Times are the control plane's own, from its event log.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.models, when run as a script

from api.cli.stack import TWO_POOLS, running_stack
from api.client import Client
from api.views import EventView
from benchmarks.engine_side import usual_precision
from service.jobs.states import JobState
from service.settings import Settings
from tests.models import make_model

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "hh_rlhf_harmless_base_test.jsonl.gz"
SMALL = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
}


@dataclass(frozen=True)
class Timing:
    """Seconds since the POST."""

    driver_speaks: float
    first_step: float
    succeeded: float
    stages: dict[str, float]
    hits: int
    scored: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", choices=["float32", "bf16"], default=usual_precision()[0])
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as home:
        settings = Settings(home=Path(home), port=8790)
        with running_stack(settings, TWO_POOLS, say=lambda text: print(f"... {text}", flush=True)) as stack:
            model = make_model(stack.settings.storage_root / "models" / "bench", **SMALL)
            with Client(stack.url, stack.key) as client:
                file_id = client.files.upload(PAIRS).id
                seeds = [0, 0, *range(1, arguments.runs)]
                timings = [run(client, spec(model, file_id, arguments, seed)) for seed in seeds]
    report(timings)


def spec(model: Path, file_id: str, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"train": file_id, "max_bad_rows": 4, "max_length": 256},
        "training": {
            "batch_size": 16,
            "max_steps": arguments.steps,
            "seed": seed,
            "precision": arguments.precision,
        },
        "serve": False,
    }


def run(client: Client, spec: dict[str, Any]) -> Timing:
    job_id = client.jobs.create(spec).id
    for news in client.jobs.events(job_id):
        if isinstance(news, EventView):
            print(f"    {news.message}", flush=True)
    job = client.jobs.get(job_id)
    if job.state is not JobState.SUCCEEDED or job.finished_at is None:
        raise SystemExit(f"the job {job.state}: {job.error}")

    def since(time: datetime) -> float:
        return (time - job.created_at).total_seconds()

    events = client.jobs.list_events(job_id, limit=1000).data
    first = {event.type: event for event in reversed(events)}
    scored = first["reference.scored"].data
    return Timing(
        driver_speaks=since(first["job.running"].created_at),
        first_step=since(client.jobs.list_metrics(job_id, limit=1).data[0].created_at),
        succeeded=since(job.finished_at),
        stages={str(event.stage): event.data["seconds"] for event in events if event.type == "stage.completed"},
        hits=scored["hits"],
        scored=scored["scored"],
    )


def report(timings: list[Timing]) -> None:
    print("\n| run | scored | hits | driver speaks s | first step s | " + " | ".join(timings[0].stages) + " | done s |")
    print("|---" * (6 + len(timings[0].stages)) + "|")
    for number, timing in enumerate(timings, 1):
        stages = " | ".join(f"{seconds:.1f}" for seconds in timing.stages.values())
        print(
            f"| {number} | {timing.scored} | {timing.hits} | {timing.driver_speaks:.1f} | {timing.first_step:.1f} | "
            f"{stages} | {timing.succeeded:.1f} |"
        )
    overheads = [timing.first_step for timing in timings]
    print(
        f"\nfixed overhead, POST to first training step: median {statistics.median(overheads):.1f} s "
        f"[{min(overheads):.1f}-{max(overheads):.1f}] over {len(overheads)} runs"
    )


if __name__ == "__main__":
    main()
