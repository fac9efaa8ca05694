"""Of `scale.py`: what passes of the reconcilers cost on a full cluster, and how fast an empty one is filled."""

import argparse
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median

from sqlalchemy import func, select, update

from benchmarks.scale_meter import Cost
from benchmarks.scale_scene import MANY, Scene, cluster, on_scene, show
from service.clock import utc_now
from service.controller import budget, start, stop
from service.controller.foretell import Foretell
from service.controller.watch import Watch
from service.db.session import Database
from service.db.tables import Attempt, Job
from service.jobs.states import JobState
from service.queue import observation
from service.queue.snapshot import take
from service.queue.view import look, read_history


def bench_passes(fresh: Callable[[], str], home: Path, arguments: argparse.Namespace) -> None:
    for nodes, queued in arguments.sizes:
        print(f"  {nodes} nodes, {queued} queued", flush=True)
        jobs = {"running": nodes * 8 // 10, "queued": queued, "ended": queued}
        with cluster(nodes) as (url, _):
            on_scene(fresh(), url, home, jobs, _passes)


async def _passes(scene: Scene) -> None:
    controller, settings = scene.controller, scene.settings
    database = controller.database

    async def snapshot() -> None:
        async with database.reading() as session:
            await take(session, settings, utc_now())

    await scene.cost("snapshot", snapshot)
    async with database.reading() as session:
        facts, history = await take(session, settings, utc_now()), await read_history(session)
    decided = facts.plan()
    in_plan = {"looked_at": len(facts.queued), "running": len(facts.on_cluster), "starts": len(decided.starts)}

    async def plan() -> None:
        facts.plan()

    async def forecast() -> None:
        look(facts, history)

    show("facts", in_plan)
    await scene.cost("plan", plan)
    await scene.cost("plan and forecast", forecast)
    await scene.cost("nodes", lambda: observation.observe(database, controller.nodes, settings, every_s=0))
    await scene.cost("start", lambda: start.reconcile(controller))
    watch = Watch()
    await _speak(database, ago_s=0)
    await scene.cost("watch", lambda: watch.reconcile(controller))
    await _speak(database, ago_s=60)  # longer than an attempt is silent, and not as long as one is given up for
    await scene.cost("watch, all silent", lambda: watch.reconcile(controller))
    await scene.cost("budget", lambda: budget.reconcile(controller))
    await _give_budgets(database)
    await scene.cost("budget, all with one", lambda: budget.reconcile(controller))
    await scene.cost("stop", lambda: stop.reconcile(controller))
    await scene.cost("foretell", lambda: Foretell().reconcile(controller))


async def _speak(database: Database, ago_s: float) -> None:
    """All attempts that run, so long ago."""
    async with database.transaction() as session:
        then = utc_now() - timedelta(seconds=ago_s)
        await session.execute(update(Attempt).where(Attempt.finished_at.is_(None)).values(heartbeat_at=then))


async def _give_budgets(database: Database) -> None:
    async with database.transaction() as session:
        for job in await session.scalars(select(Job).where(Job.state == JobState.RUNNING)):
            job.spec = job.spec | {"resources": job.spec["resources"] | {"max_gpu_hours": 1e6}}


def bench_starts(fresh: Callable[[], str], home: Path, arguments: argparse.Namespace) -> None:
    for nodes, queued in arguments.sizes:
        with cluster(nodes, run_s=MANY, report_every_s=MANY) as (url, _):
            jobs = {"running": 0, "queued": queued, "ended": queued}
            on_scene(fresh(), url, home, jobs, partial(_starts, nodes=nodes))


async def _starts(scene: Scene, nodes: int) -> None:
    controller = scene.controller
    passes: list[tuple[int, Cost]] = []
    began, before = time.perf_counter(), 0
    while True:
        with scene.meter.measure() as cost:
            await start.reconcile(controller)
        now = await _count(controller.database, JobState.STARTING)
        if now == before:
            break
        passes.append((now - before, cost))
        before = now
    taken = time.perf_counter() - began
    found = {"started": before, "seconds": round(taken, 2), "a_second": round(before / taken, 1), "passes": len(passes)}
    found["longest_pass_s"] = round(max(cost.seconds for _, cost in passes), 2)
    found["statements_a_start"] = round(median(cost.statements / count for count, cost in passes), 1)
    found["cpu_ms_a_start"] = round(1000 * sum(cost.cpu_s for _, cost in passes) / before, 1)
    found["database_cpu_ms_a_start"] = round(1000 * sum(cost.database_cpu_s for _, cost in passes) / before, 1)
    show(f"empty cluster of {nodes} nodes, filled", found)


async def _count(database: Database, state: JobState) -> int:
    async with database.reading() as session:
        return (await session.scalars(select(func.count()).select_from(Job).where(Job.state == state))).one()
