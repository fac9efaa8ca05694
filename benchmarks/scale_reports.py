"""Of `scale.py`: callbacks of many attempts into one process of the API, alone and with the controller beside it."""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from sqlalchemy import func, select

from benchmarks import control_plane, scale_rows
from benchmarks.scale_meter import postgres_process, server_cpu_s
from benchmarks.scale_scene import MANY, cluster, show
from service.db.session import Database
from service.db.tables import Job, Metric
from service.jobs.tokens import attempt_token
from service.settings import Settings

_Result = TypeVar("_Result")
_WAIT_S = 10.0  # between two looks at what runs


def bench_reports(fresh: Callable[[], str], home: Path, arguments: argparse.Namespace) -> None:
    """Attempts that tell a step as soon as the one before was taken: as many as one process of the API takes."""
    del home
    for attempts in arguments.attempts:
        url = fresh()
        with control_plane.running(url) as bench, cluster(1, run_s=MANY, report_every_s=0) as (ray, load):
            ids = _on(url, partial(scale_rows.fill, running=attempts, queued=0, ended=0))
            server = postgres_process()
            began, cpu = time.perf_counter(), _cpu(bench.process, server)
            httpx.post(f"{ray}/bench", json=_environments(bench.settings, ids), trust_env=False).raise_for_status()
            time.sleep(arguments.seconds)
            told = httpx.get(f"{ray}/bench", trust_env=False).json()
            taken = time.perf_counter() - began
            used = [after - before for before, after in zip(cpu, _cpu(bench.process, server), strict=True)]
            count = told["callbacks"]
            found: dict[str, Any] = {"callbacks": count, "a_second": round(count / taken, 1)}
            found |= {"longest_s": told["longest_s"], "refused": told["refused"]}
            found |= {"api_cpu_ms": 1000 * used[0] / count, "database_cpu_ms": 1000 * used[1] / count}
            found |= {"api_mib": bench.process.memory_info().rss // 2**20, "load_mib": load.memory_info().rss // 2**20}
            found |= {"taken": _last_taken(ray), "stored": _on(url, _count_metrics)}
            show(f"reports of {attempts} attempts at once", found)


def _last_taken(ray: str) -> int:
    """How many callbacks have been taken once no attempt waits for an answer any more."""
    httpx.delete(f"{ray}/bench", trust_env=False).raise_for_status()
    while (told := httpx.get(f"{ray}/bench", trust_env=False).json())["reporting"]:
        time.sleep(0.1)
    return int(told["callbacks"])


def _environments(settings: Settings, attempt_ids: list[str]) -> dict[str, dict[str, str]]:
    """What the controller gives each attempt's driver."""
    return {
        id: {
            "PLUMBLINE_API_URL": settings.public_url,
            "PLUMBLINE_ATTEMPT_ID": id,
            "PLUMBLINE_ATTEMPT_TOKEN": attempt_token(settings, id),
        }
        for id in attempt_ids
    }


def bench_whole(fresh: Callable[[], str], home: Path, arguments: argparse.Namespace) -> None:
    nodes, queued = max(arguments.sizes)
    url = fresh()
    with (
        control_plane.running(url) as bench,
        cluster(nodes, run_s=arguments.run_s, report_every_s=arguments.report_every_s) as (ray, _),
    ):
        _on(url, partial(scale_rows.fill, running=0, queued=queued, ended=queued))
        server = postgres_process()
        with _controller(home, url, bench.settings, ray) as controller:
            while not httpx.get(f"{ray}/bench", trust_env=False).json()["callbacks"]:
                assert controller.is_running(), (home / "controller.log").read_text()[-2000:]
                time.sleep(0.1)
            began, cpu = time.perf_counter(), (*_cpu(bench.process, server), *_cpu(controller, None)[:1])
            while (taken := time.perf_counter() - began) < 2 * arguments.seconds:
                time.sleep(min(_WAIT_S, 2 * arguments.seconds - taken))
                assert controller.is_running(), (home / "controller.log").read_text()[-2000:]
                told = httpx.get(f"{ray}/bench", trust_env=False).json()
                show(f"after {time.perf_counter() - began:.0f} s", _on(url, _states) | told)
            used = (*_cpu(bench.process, server), *_cpu(controller, None)[:1])
            shares = [round((after - before) / taken, 2) for before, after in zip(cpu, used, strict=True)]
            found: dict[str, Any] = dict(zip(("api_cores", "database_cores", "controller_cores"), shares, strict=True))
            found |= {"api_mib": bench.process.memory_info().rss // 2**20}
            found |= {"controller_mib": controller.memory_info().rss // 2**20}
            show("together", found)
        warnings = [line for line in (home / "controller.log").read_text().splitlines() if "WARN" in line]
        show("warnings of the controller", {"count": len(warnings), "first": warnings[:3]})


@contextmanager
def _controller(home: Path, url: str, api: Settings, ray: str) -> Iterator[psutil.Process]:
    environment = os.environ | {
        "PLUMBLINE_HOME": str(home),
        "PLUMBLINE_DATABASE_URL": url,
        "PLUMBLINE_API_URL": api.public_url,
        "PLUMBLINE_RAY_URL": ray,
        "PLUMBLINE_SECRET": control_plane.SECRET,
        "PLUMBLINE_MAX_RUNNING_JOBS": str(MANY),
    }
    command = [sys.executable, "-c", "from api.cli.main import app; app()", "controller"]
    with (home / "controller.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=Path(__file__).parents[1])
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _cpu(process: psutil.Process, server: psutil.Process | None) -> tuple[float, float]:
    return sum(process.cpu_times()[:2]), server_cpu_s(server) if server is not None else 0.0


def _on(url: str, work: Callable[[Database], Awaitable[_Result]]) -> _Result:
    """What `work` returns, in an event loop of its own."""

    async def run() -> _Result:
        database = Database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


async def _count_metrics(database: Database) -> int:
    async with database.reading() as session:
        return (await session.scalars(select(func.count()).select_from(Metric))).one()


async def _states(database: Database) -> dict[str, int]:
    async with database.reading() as session:
        rows = await session.execute(select(Job.state, func.count()).group_by(Job.state))
        return {state.value: count for state, count in rows}
