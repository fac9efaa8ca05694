"""Metrics that are read from the database when Prometheus asks: how jobs stand now. Every API replica tells the same.

The queries count on indexes or on live jobs only, and their answer is kept for `KEPT_S`, whoever asks how often.
"""

import asyncio
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Attempt, Deployment, Job
from service.db.trouble import TROUBLE
from service.jobs.states import LIVE, AttemptState, DeploymentState, JobState
from service.telemetry.queue_metrics import queue_families

KEPT_S = 5.0
MAX_PROJECTS = 50  # with a series of their own


class DatabaseMetrics:
    """The families, read anew when they are older than `KEPT_S`. Call it from one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read_at: float | None = None
        self._families: list[Metric] = []
        self._reading = asyncio.Lock()

    async def families(self) -> list[Metric]:
        """`plumbline_database_up` alone while the database does not answer: a scrape never fails for that."""
        async with self._reading:
            if self._read_at is None or time.monotonic() - self._read_at >= KEPT_S:
                self._families = await self._read()
                self._read_at = time.monotonic()
            return self._families

    async def _read(self) -> list[Metric]:
        try:
            async with self._database.reading() as session:
                found = await _jobs(session) + await _attempts(session) + await _deployments(session)
                found += await queue_families(session)
        except TROUBLE:
            return [_gauge("database_up", "Whether the database answered", 0)]
        return [_gauge("database_up", "Whether the database answered", 1), *found]


async def _jobs(session: AsyncSession) -> list[Metric]:
    by_state = await _counts(session, select(Job.state, func.count()).group_by(Job.state))
    jobs = GaugeMetricFamily("plumbline_jobs", "Jobs in each state", labels=["state"])
    for state in JobState:
        jobs.add_metric([state], by_state.get(state, 0))

    live = select(Job.project_id, Job.state, func.count()).where(Job.state.in_(LIVE))
    rows = [
        (project, state, count)
        for project, state, count in await session.execute(live.group_by(Job.project_id, Job.state))
    ]
    live_jobs = GaugeMetricFamily(
        "plumbline_live_jobs", "Jobs that have not ended, by project", labels=["project", "state"]
    )
    for labels, count in _by_project(rows).items():
        live_jobs.add_metric(labels, count)

    oldest = select(Job.created_at).where(Job.state == JobState.QUEUED).order_by(Job.id).limit(1)
    waiting_s = _age_s((await session.scalars(oldest)).one_or_none())
    return [jobs, live_jobs, _gauge("queue_oldest_seconds", "Age of the oldest job that waits", waiting_s)]


async def _attempts(session: AsyncSession) -> list[Metric]:
    active = (AttemptState.PENDING, AttemptState.RUNNING)
    counts = select(Attempt.state, func.count()).where(Attempt.state.in_(active)).group_by(Attempt.state)
    by_state = await _counts(session, counts)
    attempts = GaugeMetricFamily("plumbline_active_attempts", "Attempts that have not ended", labels=["state"])
    for state in active:
        attempts.add_metric([state], by_state.get(state, 0))
    quietest = select(func.min(Attempt.heartbeat_at)).where(Attempt.state == AttemptState.RUNNING)
    silence_s = _age_s((await session.scalars(quietest)).one())
    return [
        attempts,
        _gauge("attempt_silence_seconds", "Longest time since a running attempt's last report", silence_s),
    ]


async def _deployments(session: AsyncSession) -> list[Metric]:
    counts = select(Deployment.state, func.count()).group_by(Deployment.state)
    by_state = await _counts(session, counts)
    deployments = GaugeMetricFamily("plumbline_deployments", "Deployments in each state", labels=["state"])
    for state in DeploymentState:
        deployments.add_metric([state], by_state.get(state, 0))
    return [deployments]


async def _counts(session: AsyncSession, query: "Select[Any, int]") -> dict[Any, int]:
    return {state: int(count) for state, count in await session.execute(query)}


def _by_project(rows: Iterable[tuple[str, JobState, int]]) -> dict[tuple[str, str], int]:
    """The `MAX_PROJECTS` with the most jobs by name; the rest together as "other"."""
    rows = list(rows)
    totals: dict[str, int] = {}
    for project, _, count in rows:
        totals[project] = totals.get(project, 0) + count
    named = set(sorted(totals, key=lambda project: (-totals[project], project))[:MAX_PROJECTS])
    found: dict[tuple[str, str], int] = {}
    for project, state, count in rows:
        key = (project if project in named else "other", str(state))
        found[key] = found.get(key, 0) + count
    return found


def _age_s(since: datetime | None) -> float:
    return max(0.0, (utc_now() - since).total_seconds()) if since is not None else 0.0


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"plumbline_{name}", documentation, value=value)
