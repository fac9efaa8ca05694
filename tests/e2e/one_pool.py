"""A Ray of one node beside its head, for what runs on a pool without the service."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from service.spec.pools import Pool


@contextmanager
def one_node(pool: Pool) -> Iterator[Callable[[], None]]:
    """Joined; the call that is yielded takes the node away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        head = {"num_cpus": 1, "labels": {"pool": "control"}, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        node = cluster.add_node(num_cpus=2, labels={"pool": pool})
        ray.init(address=cluster.address, log_to_driver=False)
        yield lambda: cluster.remove_node(node)
        ray.shutdown()
        cluster.shutdown()


def actors_of(class_name: str) -> list[int]:
    """Process IDs of the living ones."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # a drained node's raylet is a zombie
            if " ".join(process.cmdline()).startswith(f"ray::{class_name}"):
                found.append(process.pid)
    return found
