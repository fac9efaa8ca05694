"""Training runs beside the reference pass only where both are sure of their places."""

import pytest

from service.spec import PoolRequest
from workers.pools import Node, can_overlap


def gpus(**of_labels: float) -> list[Node]:
    return [Node(label, 64, count) for label, count in of_labels.items()]


@pytest.mark.parametrize(
    ("scorers", "trainers", "nodes", "expected"),
    [
        ({}, {}, gpus(policy=1, reference=1), True),
        ({}, {}, gpus(policy=1), True),  # scorers' nodes are brought when they are asked for
        ({}, {}, gpus(shared=2), True),
        ({}, {}, gpus(shared=1), False),
        ({}, {}, gpus(shared=1, policy=1), False),  # training may take the only GPU that a scorer can have
        ({}, {}, gpus(shared=1, reference=1), False),  # and the other way round
        ({}, {}, gpus(shared=2, policy=1), True),
        ({}, {"workers": 3}, gpus(shared=4), True),
        ({"workers": 2}, {"workers": 3}, gpus(shared=4), False),
        ({"gpus_per_worker": 0.5}, {"gpus_per_worker": 0.5}, gpus(shared=1), True),
        ({"gpus_per_worker": 0.3}, {"gpus_per_worker": 0.1, "workers": 7}, gpus(shared=1), True),
        ({"gpus_per_worker": 0.3}, {"gpus_per_worker": 0.1, "workers": 8}, gpus(shared=1), False),
        ({}, {"workers": 2}, [Node("shared", 64, 2), Node("policy", 64, 1), Node("policy", 64, 1)], False),
        ({}, {"workers": 1}, [Node("shared", 64, 2), Node("policy", 64, 1), Node("policy", 64, 1)], True),
        ({"cpus_per_worker": 2}, {"cpus_per_worker": 2}, [Node("shared", 4, 0)], True),
        ({"cpus_per_worker": 2}, {"cpus_per_worker": 3}, [Node("shared", 4, 0)], False),
        # eight CPUs for eight, but none of both nodes has two left
        ({"cpus_per_worker": 2}, {"cpus_per_worker": 3, "workers": 2}, [Node("shared", 4, 0)] * 2, False),
        # two trainers on one node or on two: only some ways leave room for a scorer of three
        ({"cpus_per_worker": 3}, {"cpus_per_worker": 2, "workers": 2}, [Node("shared", 4, 0)] * 2, False),
        ({"cpus_per_worker": 2}, {"cpus_per_worker": 2, "workers": 2}, [Node("shared", 4, 0)] * 2, True),
        ({}, {"workers": 3}, gpus(shared=2), False),  # training alone has no room
    ],
)
def test_both_run_at_one_time_if_however_one_is_placed_the_other_has_room(
    scorers: dict[str, float], trainers: dict[str, float], nodes: list[Node], expected: bool
) -> None:
    assert can_overlap(PoolRequest.model_validate(scorers), PoolRequest.model_validate(trainers), nodes) == expected
