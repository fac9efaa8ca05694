"""What the cluster's pools can hold, and whether some jobs can be on them at one time. Pure.

A pool is a node label (`service.spec.pools`); nodes labelled `shared` carry several pools, so what overflows a pool's
own nodes is counted against those. Counting is by label, not by node: a job may still wait in Ray for GPUs that are
free on different nodes only.
"""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from service.spec import AlignmentJob, Lora, PoolRequest
from service.spec.placement import has_place_for_scorer
from service.spec.pools import SHARED, Pool
from service.spec.resources import ReferencePlacement
from service.spec.training import Parallelism

COMPUTE_POOLS = (Pool.POLICY, Pool.REFERENCE)
_TOLERANCE = 1e-9  # of sums of fractions of a GPU


@dataclass(frozen=True)
class Amount:
    """GPUs and CPU slots."""

    gpus: float = 0.0
    cpus: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.gpus + other.gpus, self.cpus + other.cpus)

    def minus(self, other: "Amount") -> "Amount":
        """What is left, never less than nothing."""
        return Amount(max(0.0, self.gpus - other.gpus), max(0.0, self.cpus - other.cpus))

    def within(self, other: "Amount") -> bool:
        return self.gpus <= other.gpus + _TOLERANCE and self.cpus <= other.cpus + _TOLERANCE


@dataclass(frozen=True)
class Node:
    """A living node. `accelerator`: Ray's name of its GPUs' type, None where there are none or it is not known."""

    label: str
    gpus: float
    cpus: float
    accelerator: str | None = None


@dataclass(frozen=True)
class Capacity:
    """The nodes that carry a `pool` label, as they were seen at `observed_at`."""

    nodes: tuple[Node, ...]
    observed_at: datetime

    @cached_property
    def demands(self) -> "dict[Needs, Demand]":
        """What `Needs.demand` has worked out for this cluster."""
        return {}

    @cached_property
    def _by_label(self) -> dict[str, Amount]:
        sums: dict[str, Amount] = {}
        for node in self.nodes:
            sums[node.label] = sums.get(node.label, Amount()) + Amount(node.gpus, node.cpus)
        return sums

    @cached_property
    def labels(self) -> frozenset[str]:
        return frozenset(self._by_label)

    def of_label(self, label: str) -> Amount:
        return self._by_label.get(label, Amount())

    def nodes_of(self, pool: Pool) -> list[Node]:
        return [node for node in self.nodes if node.label in pool.labels]

    def of_pool(self, pool: Pool) -> Amount:
        return sum((self.of_label(label) for label in sorted(pool.labels)), Amount())


@dataclass(frozen=True)
class Demand:
    """What a job holds while it is on the cluster, by pool: all of its workers of the pool together."""

    policy: Amount = field(default_factory=Amount)
    reference: Amount = field(default_factory=Amount)

    def __add__(self, other: "Demand") -> "Demand":
        return Demand(self.policy + other.policy, self.reference + other.reference)

    def minus(self, other: "Demand") -> "Demand":
        """What is left, never less than nothing."""
        return Demand(self.policy.minus(other.policy), self.reference.minus(other.reference))

    def of(self, pool: Pool) -> Amount:
        return self.policy if pool is Pool.POLICY else self.reference

    @property
    def gpus(self) -> float:
        return self.policy.gpus + self.reference.gpus

    @property
    def pools(self) -> tuple[Pool, ...]:
        return tuple(pool for pool in COMPUTE_POOLS if self.of(pool) != Amount())


@dataclass(frozen=True)
class Needs:
    """What a job asks of the pools, before it is known what they are like."""

    policy: PoolRequest
    reference: PoolRequest | None  # None where no scorers of its own are ever started
    reference_is_optional: bool = False  # the policy's workers score where scorers have no place beside them

    @classmethod
    def of(cls, spec: AlignmentJob) -> "Needs":
        """As `workers.attempt` places the reference pass."""
        resources = spec.resources
        placement = resources.reference_placement
        auto = placement is ReferencePlacement.AUTO and spec.reference is None
        sliced = spec.training.parallelism is Parallelism.FSDP and resources.policy.workers > 1
        if not spec.needs_reference_pass or placement is ReferencePlacement.POLICY or (auto and sliced):
            return cls(resources.policy, None)
        return cls(resources.policy, resources.reference, auto and isinstance(spec.training.method, Lora))

    def in_pools(self, capacity: Capacity | None) -> dict[Pool, PoolRequest]:
        """Workers by pool."""
        asked = {Pool.POLICY: self.policy}
        if self.reference is not None and not (self.reference_is_optional and self._leave_no_place(capacity)):
            asked[Pool.REFERENCE] = self.reference
        return asked

    def _leave_no_place(self, capacity: Capacity | None) -> bool:
        assert self.reference is not None
        return capacity is not None and not has_place_for_scorer(self.policy, self.reference, capacity.nodes)

    def demand(self, capacity: Capacity | None) -> Demand:
        """What a job with these needs holds. Worked out once for each observation of the cluster."""
        if capacity is None:
            return self._demand(None)
        if (known := capacity.demands.get(self)) is None:
            known = capacity.demands[self] = self._demand(capacity)
        return known

    def _demand(self, capacity: Capacity | None) -> Demand:
        """Workers without `gpus_per_worker` take a GPU each where their pool has any, and none where it is not known.

        Scorers count as held to the job's end, although they leave at the end of their pass; and only as many of them
        as their pool has room for, since a pass goes on with those that find a place. Where pass and training do not
        fit beside each other on an empty cluster they follow one another, and hold no more than the larger.
        """
        amounts = {pool: _amount(request, pool, capacity) for pool, request in self.in_pools(capacity).items()}
        policy, reference = amounts[Pool.POLICY], amounts.get(Pool.REFERENCE, Amount())
        both = Demand(policy, reference)
        if capacity is None or fits(both, capacity):
            return both
        if fits(Demand(policy), capacity) and fits(Demand(reference=reference), capacity):
            return Demand(policy, reference.minus(policy))
        return both


def fits(demand: Demand, capacity: Capacity) -> bool:
    """Whether the pools can hold all of `demand` at one time."""
    return not shortfall(demand, capacity)


def shortfall(demand: Demand, capacity: Capacity) -> dict[Pool, Amount]:
    """What is missing, by the pool that overflows; empty if all of it fits."""
    over = {pool: demand.of(pool).minus(capacity.of_label(pool.value)) for pool in COMPUTE_POOLS}
    shared = capacity.of_label(SHARED)
    total = sum(over.values(), Amount())
    if total.within(shared):
        return {}
    missing = total.minus(shared)
    return {pool: _at_most(amount, missing) for pool, amount in over.items() if _at_most(amount, missing) != Amount()}


def _amount(request: PoolRequest, pool: Pool, capacity: Capacity | None) -> Amount:
    gpus, workers = request.gpus_per_worker, request.workers
    if gpus is None:
        gpus = float(capacity is not None and capacity.of_pool(pool).gpus > 0)
    if capacity is not None and pool is Pool.REFERENCE:
        room = capacity.of_pool(pool)
        for each, there in ((gpus, room.gpus), (request.cpus_per_worker, room.cpus)):
            if each:
                workers = max(1, min(workers, int(there / each + _TOLERANCE)))
    return Amount(workers * gpus, workers * request.cpus_per_worker)


def _at_most(amount: Amount, limit: Amount) -> Amount:
    return Amount(min(amount.gpus, limit.gpus), min(amount.cpus, limit.cpus))
