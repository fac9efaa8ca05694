"""A Ray whose nodes see only their own processes, as in pods, and whose head keeps its state in Redis.

Ray finds the node that a driver is on by the processes it sees, and would take the head where all are on one machine.
"""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from api.cli.local_ray import LocalRay, Node
from api.cli.processes import answers, end, free_port, spawn
from service.spec.pools import Pool
from tests.deploy.rendered import of_kind, rendered
from tests.e2e.scenario import TIMEOUT_S, living_nodes, wait_for

HEAD = "head"
# SIGKILL, because unshare lets SIGTERM pass it by
_POD = "setpriv --pdeathsig KILL unshare --user --map-root-user --pid --fork --mount-proc --kill-child"


class Redis:
    """The server that the overlays start, as its container does, with the address and the directory of a test."""

    def __init__(self, home: Path) -> None:
        (home / "redis").mkdir()
        self._password = secrets.token_hex(16)
        self._home = home
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the operator gives the head."""
        return {
            "RAY_REDIS_ADDRESS": f"127.0.0.1:{self._port}",
            "RAY_external_storage_namespace": "plumbline",
            "REDIS_PASSWORD": self._password,
        }

    def start(self) -> None:
        """Return when it answers."""
        if shutil.which("redis-server") is None:
            pytest.fail("These tests need a Redis server: 'apt-get install redis-server'.")
        stateful_sets = of_kind(rendered("gpu"), "StatefulSet")
        (stateful_set,) = (one for one in stateful_sets if one["metadata"]["name"] == "plumbline-redis")
        (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
        here = f"dir {self._home / 'redis'}\nport {self._port}\nbind 127.0.0.1"
        (script,) = (argument.replace("dir /data", here) for argument in container["args"])
        environment = os.environ | {"REDIS_PASSWORD": self._password}
        self._process = spawn([*container["command"], script], env=environment, log=self._home / "logs" / "redis.log")
        wait_for("an answer of Redis", lambda: answers("127.0.0.1", self._port))

    def stop(self) -> None:
        if self._process is not None:
            end([self._process], grace_s=10)


class PodsOfRay(LocalRay):
    """One for the head and one for each pool."""

    def __init__(self, home: Path, environments: dict[str, dict[str, str]]) -> None:
        """environments: what the containers of a pool, or the HEAD, have besides."""
        if subprocess.run([*_POD.split(), "true"], check=False).returncode:
            pytest.fail("These tests need user namespaces with a /proc of their own, as unshare makes them.")
        super().__init__(home)
        self._environments = environments

    def head(self) -> str:
        """The node's ID."""
        (found,) = (node for node, pool in living_nodes(self).items() if pool == HEAD)
        return found

    def replace_head(self) -> None:
        """It gets SIGTERM, and another one comes up at the same address."""
        before = self.head()
        self._terminate(self._nodes[0])
        self.restart_head(before)

    def restart_head(self, before: str) -> None:
        """As the kubelet does with one that has ended, or is about to; return when the new one has joined.

        before: the node that it was, which may seem alive for a while.
        """
        head = self._nodes[0]
        head.process.wait(timeout=60)
        head.process = self._start(head.arguments, HEAD, head.log)
        wait_for("a new head", lambda: HEAD in [pool for node, pool in self._living().items() if node != before])

    def replace(self, pool: Pool) -> None:
        """As `kubectl drain` does where the group has another pod: the old one runs its hook, gets SIGTERM and ends."""
        old = next(node for node in self._nodes if node.pool == pool)
        (leaving,) = (node for node, its_pool in wait_for("Ray", self._living).items() if its_pool == pool)
        self.add(pool)
        inside = f"nsenter --target {self._inside(old).pid} --user --pid --mount --".split()
        environment = os.environ | self.environment | {"RAY_ADDRESS": self.address}  # as the operator gives it
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        subprocess.run([*inside, *hook(pool)], env=environment, check=True, timeout=TIMEOUT_S)
        self._terminate(old)
        self._nodes.remove(old)
        wait_for("the end of the node", lambda: (living := self._living()) and leaving not in living)

    def _terminate(self, node: Node) -> None:
        self._inside(node).terminate()
        node.process.wait(timeout=60)

    def _inside(self, node: Node) -> psutil.Process:
        """The first process of the pod."""
        (first,) = psutil.Process(node.process.pid).children()
        return first

    def _living(self) -> dict[str, str]:
        """Nothing while the head does not answer."""
        try:
            return living_nodes(self)
        except httpx.HTTPError:
            return {}

    @property
    def _scaling(self) -> list[str]:
        return [*super()._scaling, f"--redis-password={self._environments[HEAD]['REDIS_PASSWORD']}"]

    @property
    def _ray(self) -> list[str]:
        return [*_POD.split(), *super()._ray]

    def _start(self, arguments: list[str], pool: str, log: Path) -> "subprocess.Popen[bytes]":
        with pytest.MonkeyPatch.context() as container:
            if pool != HEAD:  # as the operator does where the head may come back
                container.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
            for name, value in self._environments.get(pool, {}).items():
                container.setenv(name, value)
            return super()._start(arguments, pool, log)


def hook(pool: Pool) -> list[str]:
    """What a pod of the group runs before it stops."""
    (cluster,) = of_kind(rendered("gpu"), "RayCluster")
    group = next(one for one in cluster["spec"]["workerGroupSpecs"] if one["groupName"] == pool)
    command: list[str] = group["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    return command
