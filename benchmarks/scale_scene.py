"""What the parts of `scale.py` are measured on: a database with jobs, and a cluster that answers for those that run."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import psutil

from api.cli.processes import free_port
from benchmarks import control_plane, scale_rows
from benchmarks.scale_meter import Cost, Meter, postgres_process
from service.cluster.http import connect
from service.controller.context import Controller, make_controller
from service.db.session import Database
from service.queue import observation
from service.settings import Settings

MANY = 1_000_000
_CLUSTER = Path(__file__).parent / "scale_cluster.py"
_RUNS = 3
_LONG_S = 5.0  # a piece of work that takes longer is measured once


class Scene:
    def __init__(self, settings: Settings, controller: Controller, meter: Meter) -> None:
        self.settings, self.controller, self.meter = settings, controller, meter

    async def cost(self, name: str, work: Callable[[], Awaitable[Any]]) -> None:
        """Show what `work` costs, the median of some runs."""
        costs: list[Cost] = []
        while len(costs) < _RUNS and (not costs or costs[-1].seconds < _LONG_S):
            with self.meter.measure() as cost:
                await work()
            costs.append(cost)
        one = sorted(costs, key=lambda cost: cost.seconds)[len(costs) // 2]
        show(name, asdict(one))


def on_scene(url: str, cluster_url: str, home: Path, jobs: dict[str, int], work: Callable[[Scene], Any]) -> None:
    """Fill the database at `url` with `jobs` (as `scale_rows.fill`), tell the cluster of those that run, and work."""
    settings = Settings(
        home=home,
        database_url=url,
        ray_url=cluster_url,
        api_url=cluster_url,  # which says that it is healthy
        secret=control_plane.SECRET,
        max_running_jobs=MANY,
        queue_patience_s=MANY,
    )

    async def run() -> None:
        database = Database(url)
        try:
            running = await scale_rows.fill(database, **jobs)
            async with connect(settings) as client:
                (await client.post("/bench", json={id: {} for id in running})).raise_for_status()
                controller = make_controller(settings, database, client)
                await observation.observe(database, controller.nodes, settings)
                await work(Scene(settings, controller, Meter(postgres_process())))
        finally:
            await database.close()

    asyncio.run(run())


@contextmanager
def cluster(nodes: int, **options: float) -> Iterator[tuple[str, psutil.Process]]:
    """Its address, and its process. options: of `scale_cluster.py`."""
    port = free_port()
    command = [sys.executable, _CLUSTER, "--port", str(port), "--nodes", str(nodes)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(f"{url}/bench"):
            assert process.poll() is None, "the cluster has not started"
            time.sleep(0.05)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def show(name: str, found: dict[str, Any]) -> None:
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    control_plane.show(name, rounded)
