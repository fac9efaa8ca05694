"""Metrics of the queue that are read from the database: GPUs that are there and held, and how good the ETAs were."""

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.tables import Job
from service.jobs.repository import ON_CLUSTER
from service.queue import observation
from service.queue.score import WINDOW, scores


async def queue_families(session: AsyncSession) -> list[Metric]:
    return [*await _gpus(session), *await _etas(session)]


async def _gpus(session: AsyncSession) -> list[Metric]:
    nodes = observation.nodes_of(await observation.read(session))
    there = GaugeMetricFamily("plumbline_gpus", "GPUs of the cluster's pools, as last seen", labels=["pool"])
    by_label: dict[str, float] = {}
    for node in nodes:
        by_label[node.label] = by_label.get(node.label, 0.0) + node.gpus
    for label, gpus in sorted(by_label.items()):
        there.add_metric([label], gpus)
    held = await session.scalar(select(func.coalesce(func.sum(Job.gpus), 0)).where(Job.state.in_(ON_CLUSTER)))
    return [there, GaugeMetricFamily("plumbline_gpus_held", "GPUs that jobs on the cluster hold", value=held or 0)]


async def _etas(session: AsyncSession) -> list[Metric]:
    labels = ["moment", "event"]
    count = GaugeMetricFamily("plumbline_eta_forecasts", "Forecasts whose outcome is known", labels=labels)
    coverage = GaugeMetricFamily("plumbline_eta_coverage_ratio", "Outcomes that fell into the interval", labels=labels)
    error = GaugeMetricFamily("plumbline_eta_error_seconds", "Median distance from an interval's middle", labels=labels)
    for one in await scores(session, utc_now() - WINDOW):
        count.add_metric([one.moment, one.event], one.count)
        if one.coverage is not None and one.median_error_s is not None:
            coverage.add_metric([one.moment, one.event], one.coverage)
            error.add_metric([one.moment, one.event], one.median_error_s)
    return [count, coverage, error]
