"""When queued jobs will start and end, by letting the plan decide about the future: once with every run as short as it
may be, once as long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush

from service.queue.estimate import Interval
from service.queue.plan import Load, OnCluster, Plan, Queued, WaitCode, decide
from service.queue.snapshot import Snapshot

_WAITS_FOR_NO_END = (WaitCode.HELD, WaitCode.NEVER_FITS)  # of a job on the cluster: nothing here changes them
HORIZON = 40  # jobs that are looked ahead for: the first in the plan's order


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
    load = Load(snapshot.capacity, snapshot.on_cluster)

    def decided(queued: Sequence[Queued]) -> Plan:
        return decide(queued, load, snapshot.used, snapshot.rules, now, name_holders=False)

    first = decided(snapshot.queued)
    ahead = set([*first.starts, *first.waits][:HORIZON])
    queued = {job.id: job for job in snapshot.queued if job.id in ahead}
    running: dict[str, OnCluster | Queued] = {job.id: job for job in snapshot.on_cluster}
    ends = [(now + timedelta(seconds=seconds[id]), id) for id in running if id in seconds]
    heapify(ends)
    spans: dict[str, _Span] = dict.fromkeys(running, _NEVER) | {id: (None, end) for end, id in ends}
    while queued:
        plan = decided(list(queued.values()))
        for id in plan.starts:
            running[id] = job = queued.pop(id)
            load.add(job, job.needs.demand(snapshot.capacity))
            begun = now + timedelta(seconds=startup_s)
            spans[id] = (begun, None)
            if id in seconds:
                end = begun + timedelta(seconds=seconds[id])
                heappush(ends, (end, id))
                spans[id] = (begun, end)
        if not ends or all(wait.code in _WAITS_FOR_NO_END for wait in plan.waits.values()):
            break
        now = max(now, ends[0][0])
        while ends and ends[0][0] <= now:
            load.remove(running.pop(heappop(ends)[1]))
    return spans


def _ordered(one: datetime | None, other: datetime | None) -> _Span:
    if one is None or other is None:
        return one, other
    return min(one, other), max(one, other)
