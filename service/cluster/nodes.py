"""Ray's state API: the living nodes with their labels and what they have in all.

`GET /api/v0/nodes` is the one endpoint of Ray 2.60 that tells labels. What is free it does not tell: placement groups
hold resources under other names. So the queue counts what jobs asked for instead.
"""

import httpx

from service.cluster.http import ClusterUnavailable, request
from service.queue.capacity import Node

_MAX_NODES = 10_000  # Ray's own limit on an answer
_ACCELERATOR_LABEL = "ray.io/accelerator-type"
_ACCELERATOR_RESOURCE = "accelerator_type:"


class RayNodes:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def in_pools(self) -> list[Node]:
        """Living nodes that carry a `pool` label. Raises ClusterUnavailable if the answer is not a whole list of nodes:
        a cluster that starts or is busy may leave out nodes, even its head, or what they have."""
        response = await request(self._client, "GET", "/api/v0/nodes", params={"limit": _MAX_NODES})
        try:
            nodes = [node for node in response.json()["data"]["result"]["result"] if node["state"] == "ALIVE"]
            if not nodes or not all(node["resources_total"] for node in nodes):
                raise ClusterUnavailable("Ray's list of nodes is not whole.")
            return [
                Node(
                    label=node["labels"]["pool"],
                    gpus=float(node["resources_total"].get("GPU", 0)),
                    cpus=float(node["resources_total"].get("CPU", 0)),
                    accelerator=_accelerator(node["labels"], node["resources_total"]),
                )
                for node in nodes
                if "pool" in (node.get("labels") or {})
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterUnavailable(f"Ray's list of nodes cannot be read: {type(error).__name__} {error}") from error


def _accelerator(labels: dict[str, str], resources: dict[str, float]) -> str | None:
    if named := labels.get(_ACCELERATOR_LABEL):
        return named
    held = (name.removeprefix(_ACCELERATOR_RESOURCE) for name in resources if name.startswith(_ACCELERATOR_RESOURCE))
    return next(held, None)
