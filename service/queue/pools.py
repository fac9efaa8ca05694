"""The pools of the cluster: what their nodes have, and which jobs hold how much of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.queue.capacity import COMPUTE_POOLS, Node
from service.queue.forecast import Eta
from service.queue.snapshot import Snapshot
from service.spec.pools import Pool


@dataclass(frozen=True)
class PoolHolder:
    """A job on the cluster, as one project may know it. job_id, name: None for one of another project."""

    job_id: str | None
    name: str | None
    gpus: float
    cpus: float
    until_low: datetime | None
    until_high: datetime | None


@dataclass(frozen=True)
class PoolState:
    """labels: of the nodes that admit the pool's work; those of several pools count for each of them.

    accelerators: GPUs by Ray's name of their type, as far as it is known. holders: largest first; only the pools that
    jobs train and score in have any.
    """

    pool: Pool
    labels: list[str]
    nodes: int
    gpus: float
    cpus: float
    accelerators: dict[str, float] = field(default_factory=dict)
    holders: list[PoolHolder] = field(default_factory=list)


def pool_states(nodes: Sequence[Node], snapshot: Snapshot, etas: Mapping[str, Eta], project_id: str) -> list[PoolState]:
    """Every pool, in the order of `Pool`; what jobs hold is what they asked for, since Ray does not tell."""
    states = []
    for pool in Pool:
        admitted = [node for node in nodes if node.label in pool.labels]
        accelerators: Counter[str] = Counter()
        for node in admitted:
            if node.accelerator is not None:
                accelerators[node.accelerator] += node.gpus  # type: ignore[assignment] # fractions add up as well
        states.append(
            PoolState(
                pool=pool,
                labels=sorted({node.label for node in admitted}),
                nodes=len(admitted),
                gpus=sum(node.gpus for node in admitted),
                cpus=sum(node.cpus for node in admitted),
                accelerators=dict(accelerators),
                holders=_holders(pool, snapshot, etas, project_id) if pool in COMPUTE_POOLS else [],
            )
        )
    return states


def _holders(pool: Pool, snapshot: Snapshot, etas: Mapping[str, Eta], project_id: str) -> list[PoolHolder]:
    holders = []
    for job in snapshot.on_cluster:
        held = job.needs.demand(snapshot.capacity).of(pool)
        if not held.gpus and not held.cpus:
            continue
        mine, eta = job.project_id == project_id, etas.get(job.id, Eta())
        name = snapshot.specs[job.id].name if mine else None
        shown = job.id if mine else None
        holders.append(PoolHolder(shown, name, held.gpus, held.cpus, eta.finish_low, eta.finish_high))
    return sorted(holders, key=lambda one: (-one.gpus, -one.cpus, one.job_id or ""))
