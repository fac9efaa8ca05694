"""The decision which queued jobs start now, and why each of the others waits. A pure function of what was observed.

The order, which is also the position that people see:

1. Jobs that have waited longer than `Rules.patience_s`, the longest wait first.
2. Then the project that has used the fewest GPU-seconds lately for its share; within a project the higher priority,
   then the earlier job. A job that is given a place counts as use from there on, so that projects take turns.

A job that does not fit lets smaller ones pass, until it has waited longer than `patience_s`: from then on nothing may
start that draws on a pool that it needs. So every job that fits the empty cluster starts, at the latest when what is
on the cluster then has ended. A job that would not fit even the empty cluster keeps nobody waiting.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from heapq import heapify, heappop, heappush

from service.projects.quota import Quota, Shortage, Usage, reason_to_wait
from service.queue.capacity import Amount, Capacity, Demand, Needs, shortfall
from service.spec import AlignmentJob
from service.spec.pools import SHARED, Pool

_TURN_S = 600.0


class WaitCode(StrEnum):
    """Why a job is not started in this pass."""

    NEXT = "next"  # nothing keeps it: the controller starts it at its next step
    JUST_QUEUED = "just_queued"  # since the queue was last looked at
    FAR_BACK = "far_back"  # so many jobs of its project are before it that it was not looked at
    QUOTA = "quota"  # of its project; `message` says which
    HELD = "held"  # something outside the queue keeps it back; `message` says what
    MAX_RUNNING_JOBS = "max_running_jobs"  # as many jobs as the operator allows are on the cluster
    BEHIND_AGED_JOB = "behind_aged_job"  # it would delay a job that has waited too long already
    POOL_FULL = "pool_full"  # others hold what it needs
    NEVER_FITS = "never_fits"  # the cluster as it is now is too small, even when empty


@dataclass(frozen=True)
class Queued:
    """A job that waits. `queued_at`: since when, for its patience; its place among the jobs of its project is by ID,
    which a retry or a resume keeps. `gpus`: what it counts for in its project's quota. `held`: why it may not start
    whatever is free, in a sentence; None if it may."""

    id: str
    project_id: str
    needs: Needs
    queued_at: datetime
    gpus: float = 0.0
    priority: int = 0
    held: str | None = None

    @classmethod
    def of(cls, id: str, project_id: str, spec: AlignmentJob, queued_at: datetime, gpus: float) -> "Queued":
        return cls(id, project_id, Needs.of(spec), queued_at, gpus, spec.priority)


@dataclass(frozen=True)
class OnCluster:
    """A job that may hold its GPUs, from its lease to the end of its last process."""

    id: str
    project_id: str
    needs: Needs
    gpus: float = 0.0


@dataclass(frozen=True)
class Limit:
    """A project's quota, and the GPU-hours that it has used this month."""

    quota: Quota
    gpu_hours_month: float


@dataclass(frozen=True)
class Rules:
    """max_running: jobs on the cluster at one time. shares: of projects, by ID; 1 for those not named. limits: of those
    projects that have any."""

    max_running: int
    patience_s: float
    shares: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """Why one job waits. `needs` and `missing`: by pool; `ahead`: the job that must go first; `holders`: the jobs on
    the cluster that hold something in the pools that are short, largest first."""

    code: WaitCode
    needs: Demand
    missing: Mapping[Pool, Amount] = field(default_factory=dict)
    holders: tuple[str, ...] = ()
    ahead: str | None = None
    held: str | None = None
    position: int = 0  # among those that wait; 1 is next


@dataclass(frozen=True)
class Plan:
    """starts: in order. waits: for every queued job that is not in it."""

    starts: tuple[str, ...]
    waits: Mapping[str, Wait]


def plan(
    queued: Sequence[Queued],
    on_cluster: Sequence[OnCluster],
    capacity: Capacity | None,
    used: Mapping[str, float],
    rules: Rules,
    now: datetime,
) -> Plan:
    """Whatever the order of its arguments, the same for the same facts.

    capacity: None where it is not known, or grows on demand: only `rules.max_running` then limits.
    used: GPU-seconds of each project within the operator's window.
    """
    claims = {job.id: job.needs.demand(capacity) for job in sorted(on_cluster, key=lambda job: job.id)}
    running: list[OnCluster | Queued] = list(on_cluster)
    starts: list[str] = []
    waits: dict[str, Wait] = {}
    reserved: dict[str, Demand] = {}  # of aged jobs that wait
    for job, demand in _in_order(queued, capacity, used, rules, now):
        if shortage := _over_quota(job, running, rules):
            wait: Wait | None = Wait(WaitCode.QUOTA, demand, held=shortage.message.capitalize() + ".")
        else:
            wait = _why_not(job, demand, claims, reserved, capacity, rules)
        if wait is None:
            claims[job.id] = demand
            running.append(job)
            starts.append(job.id)
            continue
        waits[job.id] = replace(wait, position=len(waits) + 1)
        if _is_aged(job, rules, now) and wait.code in (WaitCode.POOL_FULL, WaitCode.BEHIND_AGED_JOB):
            reserved[job.id] = demand
    return Plan(tuple(starts), waits)


def _why_not(
    job: Queued,
    demand: Demand,
    claims: Mapping[str, Demand],
    reserved: Mapping[str, Demand],
    capacity: Capacity | None,
    rules: Rules,
) -> Wait | None:
    if job.held is not None:
        return Wait(WaitCode.HELD, demand, held=job.held)
    if capacity is not None and (missing := shortfall(demand, capacity)):
        return Wait(WaitCode.NEVER_FITS, demand, missing)
    if len(claims) >= rules.max_running:
        return Wait(WaitCode.MAX_RUNNING_JOBS, demand, holders=tuple(claims))
    if capacity is None:
        return None
    taken = sum(claims.values(), demand)
    for ahead, its in reserved.items():
        if _would_delay(demand, its, sum(reserved.values(), taken), capacity):
            return Wait(WaitCode.BEHIND_AGED_JOB, demand, ahead=ahead)
    if missing := shortfall(taken, capacity):
        holders = [id for id, held in claims.items() if _drawn_on(held, capacity) & _drawn_on(demand, capacity)]
        largest = sorted(holders, key=lambda id: (-claims[id].gpus, id))
        return Wait(WaitCode.POOL_FULL, demand, missing, holders=tuple(largest))
    return None


def _over_quota(job: Queued, running: Sequence[OnCluster | Queued], rules: Rules) -> Shortage | None:
    limit = rules.limits.get(job.project_id)
    if limit is None:
        return None
    own = [one for one in running if one.project_id == job.project_id]
    used = Usage(
        live_jobs=0,  # not asked about
        running_jobs=len(own),
        gpus=sum(one.gpus for one in own),
        gpu_hours_month=limit.gpu_hours_month,
        storage_bytes=0,
    )
    return reason_to_wait(limit.quota, used, job.gpus)


def _in_order(
    queued: Sequence[Queued], capacity: Capacity | None, used: Mapping[str, float], rules: Rules, now: datetime
) -> Iterator[tuple[Queued, Demand]]:
    aged = [job for job in queued if _is_aged(job, rules, now)]
    for job in sorted(aged, key=lambda job: (job.queued_at, job.id)):
        yield job, job.needs.demand(capacity)

    lines: dict[str, list[Queued]] = {}  # of each project, its next job last
    young = [job for job in queued if not _is_aged(job, rules, now)]
    for job in sorted(young, key=lambda job: (-job.priority, job.id), reverse=True):
        lines.setdefault(job.project_id, []).append(job)
    turns = [(used.get(project, 0.0) / rules.shares.get(project, 1.0), project) for project in lines]
    heapify(turns)
    while turns:
        use, project = heappop(turns)
        job = lines[project].pop()
        demand = job.needs.demand(capacity)
        yield job, demand
        if lines[project]:
            heappush(turns, (use + _cost(job, demand) / rules.shares.get(project, 1.0), project))


def _cost(job: Queued, demand: Demand) -> float:
    """What passes the turn on. Every run counts as equally long here: what it really took is in `used` afterwards."""
    return 0.0 if job.held is not None else _TURN_S * max(1.0, demand.gpus)


def _is_aged(job: Queued, rules: Rules, now: datetime) -> bool:
    return now - job.queued_at > timedelta(seconds=rules.patience_s)


def _would_delay(demand: Demand, ahead: Demand, everything: Demand, capacity: Capacity) -> bool:
    """Whether `ahead` may have to wait for what `demand` takes: where the two draw on the same, of which there is not
    enough for `everything` that runs, goes ahead and asks."""
    missing = shortfall(everything, capacity).values()
    scarce = {kind for kind in ("gpus", "cpus") if any(getattr(amount, kind) for amount in missing)}
    return any(kind in scarce for kind, _ in _drawn_on(demand, capacity) & _drawn_on(ahead, capacity))


def _drawn_on(demand: Demand, capacity: Capacity) -> set[tuple[str, str]]:
    """Kinds of resource and labels of the nodes that may have to give them."""
    return {
        (kind, label)
        for pool in demand.pools
        for kind, amount in (("gpus", demand.of(pool).gpus), ("cpus", demand.of(pool).cpus))
        if amount
        for label in (pool.value, SHARED)
        if label in capacity.labels
    }
