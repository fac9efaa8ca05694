"""A Ray whose worker groups are those of the overlay `gpu-autoscale`, begun and ended by Ray's own autoscaler.

Its provider for tests starts the nodes of a group as processes on this machine, where KubeRay's would make pods; what
demands nodes, and what finds them idle, is the same. A node has slots of CPU in place of GPUs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider

from api.cli.local_ray import NUM_CPUS, OBJECT_STORE_BYTES, LocalRay
from service.spec.pools import Pool
from tests.deploy.rendered import of_kind, rendered

IDLE_S = 20  # in place of the overlay's 600


class AutoscaledRay(LocalRay):
    """Its head stands for the group that always has a node, `control`."""

    @property
    def _scaling(self) -> list[str]:
        config = self._home / "autoscaler.json"
        config.write_text(json.dumps(self._config()))
        return [f"--autoscaling-config={config}"]

    def _config(self) -> dict[str, Any]:
        groups = groups_of_the_overlay()
        head = {"resources": {"CPU": NUM_CPUS}, "labels": {"pool": Pool.CONTROL.value}, "node_config": {}}
        workers = {
            one["groupName"]: {
                "resources": {"CPU": NUM_CPUS, "object_store_memory": OBJECT_STORE_BYTES},
                "labels": one["labels"],
                "min_workers": one["minReplicas"],
                "max_workers": one["maxReplicas"],
                "idle_timeout_s": IDLE_S,
                "node_config": {},
            }
            for one in groups
            if one["minReplicas"] == 0
        }
        return {
            "cluster_name": "autoscaled",
            "max_workers": sum(one["max_workers"] for one in workers.values()),
            "idle_timeout_minutes": IDLE_S / 60,
            "provider": {
                "type": "external",
                "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
                "gcs_address": self.address,
                "launch_multiple": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": workers | {"ray.head.default": head | {"max_workers": 0}},
            "head_node_type": "ray.head.default",
            # for machines that are reached by ssh, and asked for all the same
            **{f"{when}_commands": [] for when in ("initialization", "setup", "head_setup", "worker_setup")},
            **{f"{group}_start_ray_commands": [] for group in ("head", "worker")},
            **{"auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "rsync_exclude": []},
        }

    def groups(self) -> list[str]:
        """The pools of the nodes that are alive, in order."""
        headers = {"Authorization": f"Bearer {self.token}"}
        params = {"detail": "1", "limit": "100"}
        answer = httpx.get(f"{self.url}/api/v0/nodes", params=params, headers=headers, timeout=30, trust_env=False)
        nodes = answer.raise_for_status().json()["data"]["result"]["result"]
        return sorted(one["labels"]["pool"] for one in nodes if one["state"] == "ALIVE")


def groups_of_the_overlay() -> list[dict[str, Any]]:
    (cluster,) = of_kind(rendered("gpu-autoscale"), "RayCluster")
    groups: list[dict[str, Any]] = cluster["spec"]["workerGroupSpecs"]
    return groups


@contextmanager
def autoscaled(home: Path) -> Iterator[AutoscaledRay]:
    """It answers, and has no node but its head."""
    ray = AutoscaledRay(home)
    try:
        with pytest.MonkeyPatch.context() as ours:
            ours.setenv("RAY_FAKE_CLUSTER", "1")
            ours.setenv("RAY_enable_autoscaler_v2", "1")
            ours.setenv("RAY_CLOUD_INSTANCE_ID", FAKE_HEAD_NODE_ID)
            ours.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
            ray.start([Pool.CONTROL.value])
            ray.wait_until_ready()
        yield ray
    finally:
        ray.stop()
