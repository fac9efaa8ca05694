"""The decision which queued jobs start now, and why each of the others waits. A pure function of what was observed.

The order, which is also the position that people see:

1. Jobs that have waited longer than `Rules.patience_s`, the longest wait first.
2. Then the project that has used the fewest GPU-seconds lately for its share; within a project the higher priority,
   then the earlier job. A job that is given a place counts as use from there on, so that projects take turns.

A job that does not fit lets smaller ones pass, until it has waited longer than `patience_s`: from then on nothing may
start that draws on a pool that it needs. So every job that fits the empty cluster starts, at the latest when what is
on the cluster then has ended. A job that would not fit even the empty cluster keeps nobody waiting.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """A project's quota, the GPU-hours that it has used this month, and the GPUs that its served models hold."""

    quota: Quota
    gpu_hours_month: float
    gpus_served: float = 0.0


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


_Source = tuple[str, str]  # a kind of resource, and a label of nodes that give it


class Load:
    """What is on the cluster, added up as jobs come and go; so a plan costs by what it looks at, not by what runs."""

    def __init__(self, capacity: Capacity | None, jobs: Iterable[OnCluster] = ()) -> None:
        self.capacity = capacity
        self.claims: dict[str, Demand] = {}
        self.taken = Demand()
        self._of_project: dict[str, tuple[int, float]] = {}
        self._holders: dict[frozenset[_Source], list[tuple[float, str]]] = {}  # those that were asked about
        for job in sorted(jobs, key=lambda job: job.id):
            self.add(job, job.needs.demand(capacity))

    def copy(self) -> "Load":
        other = Load(self.capacity)
        other.claims, other.taken, other._of_project = dict(self.claims), self.taken, dict(self._of_project)
        return other

    def add(self, job: OnCluster | Queued, demand: Demand) -> None:
        self.claims[job.id] = demand
        self.taken += demand
        count, gpus = self.of_project(job.project_id)
        self._of_project[job.project_id] = count + 1, gpus + job.gpus
        for wanted, holders in self._holders.items():
            if _sources(demand, self.capacity) & wanted:
                insort(holders, (-demand.gpus, job.id))

    def remove(self, job: OnCluster | Queued) -> None:
        self.taken = self.taken.minus(self.claims.pop(job.id))
        count, gpus = self.of_project(job.project_id)
        self._of_project[job.project_id] = count - 1, gpus - job.gpus
        self._holders.clear()

    def of_project(self, project_id: str) -> tuple[int, float]:
        """Its jobs, and the GPUs that they count for in its quota."""
        return self._of_project.get(project_id, (0, 0.0))

    def holders(self, demand: Demand) -> tuple[str, ...]:
        """The jobs that hold something of what the demand may draw on, largest first."""
        wanted = _sources(demand, self.capacity)
        if (known := self._holders.get(wanted)) is None:
            sources = {held: _sources(held, self.capacity) & wanted for held in set(self.claims.values())}
            known = sorted((-held.gpus, id) for id, held in self.claims.items() if sources[held])
            self._holders[wanted] = known
        return tuple(id for _, id in known)


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
    return decide(queued, Load(capacity, on_cluster), used, rules, now)


def decide(
    queued: Sequence[Queued],
    load: Load,
    used: Mapping[str, float],
    rules: Rules,
    now: datetime,
    *,
    name_holders: bool = True,
) -> Plan:
    """As `plan`, with what is on the cluster added up already; `load` stays as it is.

    name_holders: without it no wait names any.
    """
    capacity = load.capacity
    step = _Step(load.copy(), rules, name_holders=name_holders)
    starts: list[str] = []
    waits: dict[str, Wait] = {}
    for job, demand in _in_order(queued, capacity, used, rules, now):
        wait = step.why_not(job, demand)
        if wait is None:
            step.load.add(job, demand)
            starts.append(job.id)
            continue
        waits[job.id] = replace(wait, position=len(waits) + 1)
        if _is_aged(job, rules, now) and wait.code in (WaitCode.POOL_FULL, WaitCode.BEHIND_AGED_JOB):
            step.reserve(job, demand)
    return Plan(tuple(starts), waits)


class _Step:
    """What is taken and reserved so far in one plan, added up as it goes."""

    def __init__(self, load: Load, rules: Rules, *, name_holders: bool) -> None:
        self.load = load
        self._rules = rules
        self._name_holders = name_holders
        self._reserved = Demand()  # by aged jobs that wait
        self._first: dict[_Source, str] = {}  # of those jobs, the first that may draw on it

    def reserve(self, job: Queued, demand: Demand) -> None:
        self._reserved += demand
        for source in _sources(demand, self.load.capacity):
            self._first.setdefault(source, job.id)

    def why_not(self, job: Queued, demand: Demand) -> Wait | None:
        """None if the job may be placed."""
        if job.held is not None:
            return Wait(WaitCode.HELD, demand, held=job.held)
        if shortage := _over_quota(job, self.load, self._rules):
            return Wait(WaitCode.QUOTA, demand, held=shortage.message.capitalize() + ".")
        capacity = self.load.capacity
        if capacity is not None and (missing := shortfall(demand, capacity)):
            return Wait(WaitCode.NEVER_FITS, demand, missing)
        if len(self.load.claims) >= self._rules.max_running:
            return Wait(
                WaitCode.MAX_RUNNING_JOBS, demand, holders=tuple(self.load.claims) if self._name_holders else ()
            )
        if capacity is None:
            return None
        if ahead := self._delayed_by(demand, capacity):
            return Wait(WaitCode.BEHIND_AGED_JOB, demand, ahead=ahead)
        if missing := shortfall(self.load.taken + demand, capacity):
            holders = self.load.holders(demand) if self._name_holders else ()
            return Wait(WaitCode.POOL_FULL, demand, missing, holders=holders)
        return None

    def _delayed_by(self, demand: Demand, capacity: Capacity) -> str | None:
        """The first aged job that may have to wait for what `demand` takes: where the two draw on the same, of which
        there is not enough for all that runs, goes ahead and asks."""
        if not self._first:
            return None
        missing = shortfall(self.load.taken + self._reserved + demand, capacity).values()
        scarce = {kind for kind in ("gpus", "cpus") if any(getattr(amount, kind) for amount in missing)}
        sources = sorted(source for source in _sources(demand, capacity) if source[0] in scarce)
        return next((self._first[source] for source in sources if source in self._first), None)


def _over_quota(job: Queued, load: Load, rules: Rules) -> Shortage | None:
    limit = rules.limits.get(job.project_id)
    if limit is None:
        return None
    running, gpus = load.of_project(job.project_id)
    used = Usage(
        live_jobs=0,  # not asked about
        running_jobs=running,
        gpus=limit.gpus_served + gpus,
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


def _sources(demand: Demand, capacity: Capacity | None) -> frozenset[_Source]:
    """All that may have to give something of the demand; none where it is not known what there is."""
    if capacity is None:
        return frozenset()
    return frozenset(
        (kind, label)
        for pool in demand.pools
        for kind, amount in (("gpus", demand.of(pool).gpus), ("cpus", demand.of(pool).cpus))
        if amount
        for label in (pool.value, SHARED)
        if label in capacity.labels
    )
