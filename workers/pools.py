"""The cluster's pools as the driver sees them: nodes that carry a label."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import ray

from service.spec import PoolRequest
from service.spec.pools import Pool

_TOLERANCE = 1e-9  # of sums of fractions of a GPU


@dataclass(frozen=True)
class Node:
    """A living node that carries a label."""

    label: str
    cpus: float
    gpus: float


def labelled_nodes() -> list[Node]:
    nodes = [node for node in ray.nodes() if node["Alive"] and "pool" in node["Labels"]]
    return [
        Node(node["Labels"]["pool"], node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes
    ]


def gpus_per_worker(pool: Pool, request: PoolRequest, nodes: Iterable[Node]) -> float:
    """What each worker gets: as asked for, or a GPU where the pool has any."""
    if request.gpus_per_worker is not None:
        return request.gpus_per_worker
    return float(any(node.gpus > 0 for node in nodes if node.label in pool.labels))


def can_overlap(scorers: PoolRequest, trainers: PoolRequest, nodes: list[Node]) -> bool:
    """Whether both pools have room for all of their workers at one time, however Ray deals them out to the nodes that
    both may take; if not, the reference pass goes first. Otherwise training might hold the one GPU that scorers may
    have, and wait for them."""
    if not any(node.label in Pool.REFERENCE.labels & Pool.POLICY.labels for node in nodes):
        return True
    scoring, training = (
        _Workers(pool, request.workers, request.cpus_per_worker, gpus_per_worker(pool, request, nodes))
        for pool, request in ((Pool.REFERENCE, scorers), (Pool.POLICY, trainers))
    )
    return scoring.sure_of_place(training, nodes) and training.sure_of_place(scoring, nodes)


@dataclass(frozen=True)
class _Workers:
    """cpus and gpus: of each."""

    pool: Pool
    count: int
    cpus: float
    gpus: float

    def fit(self, node: Node) -> int:
        """How many of them the node holds."""
        if node.label not in self.pool.labels:
            return 0
        needs = ((node.cpus, self.cpus), (node.gpus, self.gpus))
        return min([self.count, *(math.floor(has / each + _TOLERANCE) for has, each in needs if each)])

    def sure_of_place(self, others: "_Workers", nodes: list[Node]) -> bool:
        """Whether all find a place after all the others, wherever these have taken theirs."""
        fewest = [0.0, *[math.inf] * others.count]  # places left, by how many of the others are on the nodes so far
        for node in nodes:
            left = [self.fit(_without(node, others, taken)) for taken in range(others.fit(node) + 1)]
            fewest = [
                min(fewest[total - taken] + places for taken, places in enumerate(left) if taken <= total)
                for total in range(others.count + 1)
            ]
        return self.count <= fewest[-1] < math.inf


def _without(node: Node, workers: _Workers, count: int) -> Node:
    return Node(node.label, node.cpus - count * workers.cpus, node.gpus - count * workers.gpus)
