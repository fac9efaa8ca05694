"""The cluster's pools as the driver sees them: nodes that carry a label."""

from dataclasses import dataclass

import ray

from service.spec import PoolRequest
from service.spec.pools import Pool


@dataclass(frozen=True)
class PoolNodes:
    """The living nodes of one pool."""

    pool: Pool
    node_ids: frozenset[str]
    cpus: float
    gpus: float

    def gpus_per_worker(self, request: PoolRequest) -> float:
        """What each worker gets: as asked for, or a GPU where there are any."""
        return request.gpus_per_worker if request.gpus_per_worker is not None else float(self.gpus > 0)


@dataclass(frozen=True)
class Node:
    """A living node that carries a label."""

    label: str
    gpus: float


def labelled_nodes() -> list[Node]:
    nodes = [node for node in ray.nodes() if node["Alive"] and "pool" in node["Labels"]]
    return [Node(node["Labels"]["pool"], node["Resources"].get("GPU", 0)) for node in nodes]


def find_pool(pool: Pool) -> PoolNodes:
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Labels"].get("pool") in pool.labels]
    return PoolNodes(
        pool,
        frozenset(node["NodeID"] for node in nodes),
        cpus=sum(node["Resources"].get("CPU", 0) for node in nodes),
        gpus=sum(node["Resources"].get("GPU", 0) for node in nodes),
    )


def can_overlap(reference: PoolNodes, scorers: PoolRequest, policy: PoolNodes, trainers: PoolRequest) -> bool:
    """Whether both pools can hold their workers at one time; if not, the reference pass goes first."""
    if not reference.node_ids & policy.node_ids:
        return True
    both = ((reference, scorers), (policy, trainers))
    gpus = sum(request.workers * nodes.gpus_per_worker(request) for nodes, request in both)
    cpus = sum(request.workers * request.cpus_per_worker for _, request in both)
    return gpus <= max(reference.gpus, policy.gpus) and cpus <= max(reference.cpus, policy.cpus)
