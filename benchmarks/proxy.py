"""What the API adds to the time until a model's first token: the engine asked directly and through the API, in turns.

    make bench-proxy      (or: python benchmarks/proxy.py --requests 300)

Starts the whole product on this machine, trains a small adapter and has it served. Then another process sends streamed
completions one after the other, to vLLM's own route on Ray Serve and to the API, in random order within each pair, each
over one open connection. The first token is the first `data:` line. As on a cluster, the API does not share its core
with engines: Ray and all it started keep to the first core, API, controller and clients to the second.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.models, when run as a script

from api.cli.stack import running_stack
from api.client import Client
from benchmarks.service_job import follow
from service.db.session import Database
from service.db.tables import Deployment
from service.jobs.states import DeploymentState
from service.settings import Settings
from tests.models import make_model

SERVED = {"hidden_size": 128, "head_dim": 32, "num_hidden_layers": 4, "dtype": "bfloat16"}
ROW = '{"prompt": "Are you there?", "chosen": "Yes, here I am.", "rejected": "No."}\n'
WARM_UP = 20
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="of each way")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # what the other process is told
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(json.loads(arguments.measure), arguments.requests)))
        return
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as home:
        settings = Settings(home=Path(home), port=8791, requests_per_minute=1_000_000)
        with running_stack(settings, say=lambda text: print(f"... {text}", flush=True)) as stack:
            with Client(stack.url, stack.key) as client:
                job_id = served(client, stack.settings)
            place = asyncio.run(place_of(stack.settings, job_id))
            keep_apart(began)
            ways = {
                "direct": {
                    "url": f"{stack.settings.serve_url}/{place['engine']}/v1/completions",
                    "model": place["model"],
                    "headers": {},
                },
                "through the API": {
                    "url": f"{stack.url}/v1/completions",
                    "model": f"job:{job_id}",
                    "headers": {"Authorization": f"Bearer {stack.key}"},
                },
            }
            command = [sys.executable, __file__, "--requests", str(arguments.requests), "--measure", json.dumps(ways)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    tell(json.loads(output))


def served(client: Client, settings: Settings) -> str:
    """A job whose adapter answers."""
    model = make_model(settings.storage_root / "models" / "base", max_position_embeddings=1024, **SERVED)
    rows = settings.home / "rows.jsonl"
    rows.write_text(ROW * 40)
    asked = {
        "model": str(model),
        "data": {"train": client.files.upload(rows).id},
        "losses": [{"type": "sft"}],
        "training": {"max_steps": 3, "batch_size": 8, "precision": "float32", "method": {"type": "lora", "rank": 8}},
    }
    job_id = client.jobs.create(asked).id
    follow(client, job_id)
    while (deployment := client.deployments.get(job_id)).state is not DeploymentState.READY:
        if deployment.state is DeploymentState.FAILED:
            raise SystemExit(f"the models are not served: {deployment.message}")
        time.sleep(1)
    return job_id


async def place_of(settings: Settings, job_id: str) -> dict[str, Any]:
    database = Database(settings.sqlalchemy_url)
    async with database.reading() as session:
        deployment = await session.get_one(Deployment, job_id)
    await database.close()
    assert deployment.places is not None
    place: dict[str, Any] = deployment.places["aligned"]
    return place


def keep_apart(began: float) -> None:
    """What was started since `began` (seconds since the epoch) goes to the first core, this process to the second."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            is_own = process.pid == os.getpid()
            if is_own or (process.create_time() > began and process.cmdline()):  # threads of the kernel have none
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, {second if is_own else first})


def measure(ways: Mapping[str, Mapping[str, Any]], requests: int) -> dict[str, list[float]]:
    """Seconds to the first token, by way, in the order of the pairs."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    order = random.Random(0)
    with httpx.Client(trust_env=False, timeout=60) as client:
        for number in range(WARM_UP + requests):
            for way in order.sample(list(ways), len(ways)):
                taken = first_token_s(client, ways[way], number)
                if number >= WARM_UP:
                    seconds[way].append(taken)
    return seconds


def first_token_s(client: httpx.Client, way: Mapping[str, Any], number: int) -> float:
    body = {"model": way["model"], "prompt": f"Question {number}:", "max_tokens": 4, "temperature": 0, "stream": True}
    started = time.perf_counter()
    first = None
    with client.stream("POST", way["url"], json=body, headers=way["headers"]) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if first is None and line.startswith("data:"):
                first = time.perf_counter() - started
    if first is None:
        raise SystemExit(f"no token came from {way['url']}")
    return first


def tell(seconds: Mapping[str, list[float]]) -> None:
    for way, taken in seconds.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        p95 = statistics.quantiles(taken, n=20)[-1]
        print(f"{way:16} {middle * 1e3:7.2f} ms [{low * 1e3:.2f}-{high * 1e3:.2f}], p95 {p95 * 1e3:.2f} ms")
    direct, proxied = seconds.values()
    added = [ours - theirs for theirs, ours in zip(direct, proxied, strict=True)]
    low, middle, high = statistics.quantiles(added, n=4)
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(added, k=len(added))) for _ in range(RESAMPLES))
    sure = medians[RESAMPLES // 40], medians[-RESAMPLES // 40]
    print(
        f"the API adds     {middle * 1e3:7.2f} ms [{low * 1e3:.2f}-{high * 1e3:.2f}], median's 95 % interval "
        f"{sure[0] * 1e3:.2f} to {sure[1] * 1e3:.2f} ms; {len(added)} pairs; bar: 5 ms"
    )


if __name__ == "__main__":
    main()
