"""A private Ray cluster on this machine: one `ray start --block` per node, each a child process of ours.

Notable choices:
- Token authentication is on, and the dashboard listens on loopback: Ray's other ports listen on every interface.
- CPU counts are logical. Drivers, scorers, trainers and idle engines share the machine's cores, and a job must never
  wait for a slot that an idle engine holds. So is memory: each node has all of the machine's, whatever is free now.
- Ray's files lie in a short temporary directory (a unix socket's path must stay below some 100 characters); its logs
  are moved to `home`/logs when it stops.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from api.cli.errors import CliError
from api.cli.processes import end, free_port, spawn, sweep
from service.spec.pools import SHARED

NUM_CPUS = 16  # logical slots of a node
OBJECT_STORE_BYTES = 300 * 2**20
START_TIMEOUT_S = 180
_STOP_GRACE_S = 12
_POLL_S = 0.2


@dataclass
class Node:
    """One `ray start --block`; `process` is the newest, if it was started again."""

    pool: str
    arguments: list[str]
    log: Path
    process: "subprocess.Popen[bytes]"


class LocalRay:
    """Made with a free port for everything; `start` starts it, `stop` leaves nothing of it behind.

    Start it from a thread that lives as long as it is to run: the nodes end with the thread.
    """

    def __init__(self, home: Path) -> None:
        """home: an existing directory; the token and the logs are kept there."""
        self.token = _token(home / "ray-token")
        self._home = home
        self._gcs_port = free_port()
        self._dashboard_port = free_port()
        self.serve_port = free_port()
        self._nodes: list[Node] = []
        self._numbers = count()
        self._temp: Path | None = None
        self._waiting: list[str] = []
        self._restarts_left = 4

    @property
    def url(self) -> str:
        """Ray's dashboard, with Job Submission and the Serve REST API."""
        return f"http://127.0.0.1:{self._dashboard_port}"

    @property
    def address(self) -> str:
        """For `ray.init(address=...)`, by a process that has `environment`."""
        return f"127.0.0.1:{self._gcs_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What lets a process on this machine join the cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self._home / "ray-token")}

    def start(self, pools: Sequence[str] = (SHARED,)) -> None:
        """Start the head; `wait_until_ready` adds the other nodes, one for each further value of the label `pool`.

        Raises CliError if Ray is not installed.
        """
        if not _ray_command().exists():
            raise CliError("Ray is not installed beside Plumbline: pip install 'plumbline[cpu]', or [gpu].")
        self._temp = Path(tempfile.mkdtemp(prefix="plumb-", dir="/tmp"))
        (self._home / "logs").mkdir(exist_ok=True)
        head = f"--head --port={self._gcs_port} --dashboard-host=127.0.0.1 --dashboard-port={self._dashboard_port}"
        # the client server cannot be left out, only moved out of the way
        head += f" --ray-client-server-port={free_port()} --temp-dir={self._temp}"
        self._spawn([*head.split(), *self._scaling], pools[0])
        self._waiting = list(pools[1:])

    def wait_until_ready(self) -> None:
        """Return when jobs can be submitted and every node has joined. Raises CliError if that does not happen.

        Nodes start one after the other: each has 30 s to join, which is not much where they share two cores.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        with self._dashboard() as client:
            while True:
                if _succeeds(client, "/api/jobs/") and len(_alive_nodes(client)) >= len(self._nodes):
                    if not self._waiting:
                        return
                    self._spawn(self._worker_arguments, self._waiting.pop(0))
                self._start_late_nodes_again()
                self._pause(deadline)

    def add(self, pool: str) -> None:
        """Start one more node of a Ray that is ready; return when it has joined. Raises CliError if it does not."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with self._dashboard() as client:
            while not (nodes := _alive_nodes(client)):
                self._pause(deadline)
            self._spawn(self._worker_arguments, pool)
            while not _alive_nodes(client) - nodes:
                self._start_late_nodes_again()
                self._pause(deadline)

    def check(self) -> None:
        """Raises CliError if a node has ended."""
        for node in self._nodes:
            if node.process.poll() is not None:
                tail = "\n".join(node.log.read_text(errors="replace").splitlines()[-15:])
                raise CliError(f"Ray's node '{node.pool}' has ended. The last lines of {node.log}:\n{tail}")

    def stop(self) -> None:
        """End every process and remove the temporary directory. Safe to call twice, or before `start`."""
        processes = [node.process for node in self._nodes]
        end(reversed(processes), grace_s=_STOP_GRACE_S)
        sessions = [process.pid for process in processes]
        self._nodes.clear()
        self._waiting.clear()
        if self._temp is not None:
            sweep(self._mark, sessions)
            self._keep_logs(self._temp)
            shutil.rmtree(self._temp, ignore_errors=True)
            self._temp = None

    def _start_late_nodes_again(self) -> None:
        """A busy machine may be too slow for Ray's 30 s; the head can be started again while it is alone."""
        for index, node in enumerate(self._nodes):
            if node.process.poll() is not None and self._restarts_left and (index or len(self._nodes) == 1):
                self._restarts_left -= 1
                node.process = self._start(node.arguments, node.pool, node.log)

    @property
    def _ray(self) -> list[str]:
        """The command, of each node."""
        return [str(_ray_command())]

    @property
    def _scaling(self) -> list[str]:
        """Arguments of the head: there is no autoscaler, the nodes are those that were started."""
        return ["--no-monitor"]

    @property
    def _worker_arguments(self) -> list[str]:
        # one log monitor per machine: with two, drivers would get every line twice
        return [f"--address={self.address}", "--include-log-monitor=false"]

    @property
    def _mark(self) -> str:
        return f"PLUMBLINE_LOCAL_RAY={self._temp}"

    def _spawn(self, arguments: list[str], pool: str) -> None:
        log = self._home / "logs" / f"ray-node-{next(self._numbers)}.log"
        self._nodes.append(Node(pool, arguments, log, self._start(arguments, pool, log)))

    def _start(self, arguments: list[str], pool: str, log: Path) -> "subprocess.Popen[bytes]":
        name, _, value = self._mark.partition("=")
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment |= self.environment | {
            name: value,
            "PATH": f"{_bin()}:{os.environ.get('PATH', '')}",  # `python` on the nodes is ours
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_enable_metrics_collection": "0",  # nobody scrapes them here
            "RAY_worker_niceness": "0",  # by default 15: a busy machine would leave a job hardly any time
        }
        common = [
            f"--num-cpus={NUM_CPUS}",
            f"--memory={_memory_bytes()}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--labels=pool={pool}",
            # by default fixed ranges, which a second node or another Ray may hold
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--dashboard-agent-listen-port=0",
            "--disable-usage-stats",
            "--block",
        ]
        log.unlink(missing_ok=True)
        return spawn([*self._ray, "start", *arguments, *common], env=environment, log=log)

    def _dashboard(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10, trust_env=False)

    def _pause(self, deadline: float) -> None:
        self.check()
        if time.monotonic() > deadline:
            raise CliError(f"Ray was not ready after {START_TIMEOUT_S} s; its logs are in {self._home / 'logs'}.")
        time.sleep(_POLL_S)

    def _keep_logs(self, temp: Path) -> None:
        kept = self._home / "logs" / "ray"
        logs = temp / "session_latest" / "logs"
        if logs.is_dir():
            shutil.rmtree(kept, ignore_errors=True)
            shutil.move(logs.resolve(), kept)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _bin() -> Path:
    return Path(sys.executable).parent


def _ray_command() -> Path:
    return _bin() / "ray"


def _token(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()


def _succeeds(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


def _alive_nodes(client: httpx.Client) -> set[str]:
    """IDs."""
    try:
        response = client.get("/nodes", params={"view": "summary"})
    except httpx.TransportError:
        return set()
    if not response.is_success:
        return set()
    nodes = [node["raylet"] for node in response.json()["data"]["summary"]]
    return {node["nodeId"] for node in nodes if node.get("state") == "ALIVE"}
