"""When queued jobs will start and end, by letting the plan decide about the future: once with every run as short as it
may be, once as long."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.queue.estimate import Interval
from service.queue.plan import OnCluster, plan
from service.queue.snapshot import Snapshot

HORIZON = 100  # jobs that are looked ahead for: the first in the plan's order


@dataclass(frozen=True)
class Eta:
    """Between when and when a job starts and ends; None where nothing like it, or like what is before it, is known."""

    start_low: datetime | None = None
    start_high: datetime | None = None
    finish_low: datetime | None = None
    finish_high: datetime | None = None


def forecast(snapshot: Snapshot, durations: Mapping[str, Interval | None], startup: Interval) -> dict[str, Eta]:
    """By job ID, for the jobs on the cluster and the first `HORIZON` that wait.

    durations: of a queued job the whole run, of one on the cluster what is left of it, in seconds.
    startup: from a job's place on the cluster to its first word there, which is when it counts as started.
    """
    known = {id: span for id, span in durations.items() if span is not None}
    early = _simulate(snapshot, {id: span.low for id, span in known.items()}, startup.low)
    late = _simulate(snapshot, {id: span.high for id, span in known.items()}, startup.high)
    etas: dict[str, Eta] = {}
    for id in early.keys() | late.keys():
        (start_low, finish_low), (start_high, finish_high) = early.get(id, _NEVER), late.get(id, _NEVER)
        # Short runs may let another job pass first, so the earlier simulation is not earlier for every job.
        start_low, start_high = _ordered(start_low, start_high)
        finish_low, finish_high = _ordered(finish_low, finish_high)
        etas[id] = Eta(start_low, start_high, finish_low, finish_high)
    return etas


_Span = tuple[datetime | None, datetime | None]
_NEVER: _Span = (None, None)


def _simulate(snapshot: Snapshot, seconds: Mapping[str, float], startup_s: float) -> dict[str, _Span]:
    """Start and end by job ID. A job of unknown length never ends here, and what waits for it never starts."""
    now = snapshot.now
    first = plan(snapshot.queued, snapshot.on_cluster, snapshot.capacity, snapshot.used, snapshot.rules, now)
    ahead = set([*first.starts, *first.waits][:HORIZON])
    queued = {job.id: job for job in snapshot.queued if job.id in ahead}
    running = {job.id: job for job in snapshot.on_cluster}
    ends: dict[str, datetime] = {}
    spans: dict[str, _Span] = {}
    for id in running:
        if id in seconds:
            ends[id] = now + timedelta(seconds=seconds[id])
        spans[id] = (None, ends.get(id))
    while queued:
        decided = plan(
            list(queued.values()), list(running.values()), snapshot.capacity, snapshot.used, snapshot.rules, now
        )
        for id in decided.starts:
            job = queued.pop(id)
            running[id] = OnCluster(job.id, job.project_id, job.needs, job.gpus)
            begun = now + timedelta(seconds=startup_s)
            if id in seconds:
                ends[id] = begun + timedelta(seconds=seconds[id])
            spans[id] = (begun, ends.get(id))
        left = {id: end for id, end in ends.items() if id in running}
        if not left:
            break
        now = max(now, min(left.values()))
        running = {id: job for id, job in running.items() if id not in left or left[id] > now}
    return spans


def _ordered(one: datetime | None, other: datetime | None) -> _Span:
    if one is None or other is None:
        return one, other
    return min(one, other), max(one, other)
