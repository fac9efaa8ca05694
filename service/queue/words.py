"""Why a job waits, for people and for programs. IDs of other projects' jobs stay out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.queue.capacity import Amount
from service.queue.forecast import Eta
from service.queue.plan import OnCluster, Queued, Wait, WaitCode
from service.queue.snapshot import PER_PROJECT, Snapshot
from service.spec.pools import Pool

_SHOWN = 3  # holders in the sentence


@dataclass(frozen=True)
class PoolNeed:
    """All workers of the job in a pool together. missing_*: what others hold of it; labels: of nodes that would do."""

    pool: Pool
    labels: list[str]
    gpus: float
    cpus: float
    missing_gpus: float
    missing_cpus: float


@dataclass(frozen=True)
class Holder:
    """A job on the cluster that holds some of what is needed. job_id: None for one of another project."""

    job_id: str | None
    gpus: float
    cpus: float
    until_low: datetime | None
    until_high: datetime | None


@dataclass(frozen=True)
class Waiting:
    """position: 1 is next; None for a job that the plan did not look at."""

    code: WaitCode
    message: str
    position: int | None = None
    needs: list[PoolNeed] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    ahead: str | None = None


NEXT = Waiting(WaitCode.NEXT, "Nothing keeps the job: the controller starts it at its next step.")
JUST_QUEUED = Waiting(WaitCode.JUST_QUEUED, "The job was queued a moment ago: its place is not worked out yet.")
FAR_BACK = Waiting(WaitCode.FAR_BACK, f"At least {PER_PROJECT // 2} jobs of your project are before this one.")


def explain(wait: Wait, snapshot: Snapshot, etas: Mapping[str, Eta], project_id: str) -> Waiting:
    """What is told to the project whose job waits."""
    capacity = snapshot.capacity
    present = capacity.labels if capacity is not None else frozenset()
    needs = [
        PoolNeed(
            pool,
            sorted(pool.labels & present) or [pool.value],
            wait.needs.of(pool).gpus,
            wait.needs.of(pool).cpus,
            (missing := wait.missing.get(pool, Amount())).gpus,
            missing.cpus,
        )
        for pool in wait.needs.pools
    ]
    holders = [_holder(id, snapshot, etas, project_id) for id in wait.holders]
    owner = {job.id: job.project_id for job in snapshot.queued}
    ahead = wait.ahead if wait.ahead is not None and owner.get(wait.ahead) == project_id else None
    message = _sentence(wait, snapshot, needs, holders, ahead)
    return Waiting(wait.code, message, wait.position, needs, holders, ahead)


def _sentence(
    wait: Wait, snapshot: Snapshot, needs: Sequence[PoolNeed], holders: Sequence[Holder], ahead: str | None
) -> str:
    match wait.code:
        case WaitCode.HELD | WaitCode.QUOTA:
            return wait.held or ""
        case WaitCode.NEVER_FITS:
            assert snapshot.capacity is not None
            has = "; ".join(
                f"{_need(need)}, and the cluster has {_amount(snapshot.capacity.of_pool(need.pool), need)} in all"
                for need in needs
                if need.pool in wait.missing
            )
            return f"Needs {has}: it waits for nodes to be added, and keeps no other job waiting."
        case WaitCode.MAX_RUNNING_JOBS:
            allowed = snapshot.rules.max_running
            return f"As many jobs as are allowed at one time ({allowed}) are on the cluster: {_held_by(holders)}."
        case WaitCode.BEHIND_AGED_JOB:
            hours = snapshot.rules.patience_s / 3600
            return (
                f"Lets {ahead or 'a job of another project'} go first, which has waited for more than {hours:g} hours "
                "and needs the same nodes."
            )
        case _:
            short = "; ".join(_need(need) for need in needs if need.missing_gpus or need.missing_cpus)
            missing = " and ".join(
                _amount(Amount(need.missing_gpus, need.missing_cpus), need)
                for need in needs
                if need.missing_gpus or need.missing_cpus
            )
            return f"Needs {short}; {missing} too few are free. Held by {_held_by(holders)}."


def _holder(id: str, snapshot: Snapshot, etas: Mapping[str, Eta], project_id: str) -> Holder:
    eta = etas.get(id, Eta())
    # on the cluster, or given a place in the very step that was planned
    jobs: list[OnCluster | Queued] = [*snapshot.on_cluster, *snapshot.queued]
    found = next(job for job in jobs if job.id == id)
    demand = found.needs.demand(snapshot.capacity)
    shown = id if found.project_id == project_id else None
    cpus = demand.policy.cpus + demand.reference.cpus
    return Holder(shown, demand.gpus, cpus, eta.finish_low, eta.finish_high)


def _held_by(holders: Sequence[Holder]) -> str:
    named = []
    for holder in holders[:_SHOWN]:
        told = holder.job_id or "a job of another project"
        if holder.gpus:
            told += f" ({_number(holder.gpus, 'GPU')})"
        if holder.until_low and holder.until_high:
            told += f" until about {_clock(holder.until_low + (holder.until_high - holder.until_low) / 2)}"
        named.append(told)
    more = len(holders) - len(named)
    return ", ".join(named) + (f" and {_number(more, 'more job')}" if more > 0 else "")


def _need(need: PoolNeed) -> str:
    labels = " or ".join(f"pool={label}" for label in need.labels)
    return f"{_amount(Amount(need.gpus, need.cpus), need)} labelled {labels}"


def _amount(amount: Amount, need: PoolNeed) -> str:
    """GPUs, or CPU slots where the job needs no GPUs or too few slots are the matter."""
    if need.gpus and (need.missing_gpus or not need.missing_cpus):
        return _number(amount.gpus, "GPU")
    return _number(amount.cpus, "CPU slot")


def _number(count: float, noun: str) -> str:
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def _clock(at: datetime) -> str:
    return at.strftime("%d %b %H:%M UTC") if at.date() != datetime.now(at.tzinfo).date() else at.strftime("%H:%M UTC")
