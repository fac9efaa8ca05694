"""Whether scorers have a place beside training: one rule, by which the control plane plans and an attempt runs."""

from collections.abc import Iterable
from typing import Protocol

from service.spec.pools import SHARED, Pool
from service.spec.resources import PoolRequest

_TOLERANCE = 1e-9  # of sums of fractions of a GPU


class LabelledNode(Protocol):
    """A living node of the cluster."""

    @property
    def label(self) -> str: ...

    @property
    def gpus(self) -> float: ...


def has_place_for_scorer(policy: PoolRequest, reference: PoolRequest, nodes: Iterable[LabelledNode]) -> bool:
    """Whether some node is there for scorers, and has a GPU for one of them that training on all of its workers leaves.

    True where training or scorers take no GPUs: slots of CPUs are threads, and a pass that goes before training has as
    many of them. GPUs are counted by label, not by node.
    """
    gpus: dict[str, float] = {}
    for node in nodes:
        gpus[node.label] = gpus.get(node.label, 0.0) + node.gpus
    if not gpus.keys() & Pool.REFERENCE.labels:
        return False
    trainers = policy.workers * _gpus_each(policy, Pool.POLICY, gpus)
    scorer = _gpus_each(reference, Pool.REFERENCE, gpus)
    if not trainers or not scorer:
        return True
    on_shared = sum(
        max(0.0, asked - gpus.get(pool, 0.0)) for pool, asked in ((Pool.POLICY, trainers), (Pool.REFERENCE, scorer))
    )
    own = scorer <= gpus.get(Pool.REFERENCE, 0.0) + _TOLERANCE
    return own or on_shared <= gpus.get(SHARED, 0.0) + _TOLERANCE


def _gpus_each(request: PoolRequest, pool: Pool, gpus: dict[str, float]) -> float:
    """What a worker asks for, or a GPU where its pool has any."""
    if request.gpus_per_worker is not None:
        return request.gpus_per_worker
    return float(sum(gpus.get(label, 0.0) for label in pool.labels) > 0)
