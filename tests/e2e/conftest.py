"""The real thing: a Ray of three nodes in two pools and a head, API and controller each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from api.cli.local_ray import LocalRay
from api.cli.processes import end, free_port, spawn
from api.cli.stack import TWO_POOLS
from api.client import Client
from tests.workers.hub_server import Contents, hub

PLUMBLINE = Path(sys.executable).parent / "plumbline"
START_TIMEOUT_S = 60


@dataclass
class Service:
    """`plumbline api` or `plumbline controller` as a process that can be killed and started again."""

    command: str
    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        assert self.process is None or self.process.poll() is not None, f"{self.command} is running already"
        self.process = spawn([str(PLUMBLINE), self.command], env=self.environment, log=self.log)

    def kill(self) -> None:
        """kill -9: nothing can be put in order on the way out."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def leave(self) -> None:
        """SIGTERM, which must end it in order within what Kubernetes gives it."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(30) in {0, -signal.SIGTERM}, self.log.read_text()

    def stop(self) -> None:
        if self.process is not None:
            end([self.process], grace_s=10)


@dataclass
class Plumbline:
    """`model_root` is a directory that jobs may name models in; `hub` is what the Hugging Face Hub has, as the cluster
    sees it."""

    url: str
    key: str
    home: Path
    model_root: Path
    ray: LocalRay
    environment: dict[str, str]
    api: Service = field(init=False)
    controller: Service = field(init=False)
    hub: Contents = field(default_factory=Contents)

    def __post_init__(self) -> None:
        logs = self.home / "logs"
        self.api = Service("api", self.environment, logs / "api.log")
        self.controller = Service("controller", self.environment, logs / "controller.log")

    def start_api(self) -> None:
        """Return when the API answers."""
        self.api.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _healthy(self.url):
            assert self.api.process is not None
            assert self.api.process.poll() is None, self.api.log.read_text()
            assert time.monotonic() < deadline, self.api.log.read_text()
            time.sleep(0.1)

    def cli(self, *arguments: str, timeout_s: float = 600) -> "subprocess.CompletedProcess[str]":
        """Run a `plumbline` command, as a user of this deployment."""
        environment = self.environment | {"PLUMBLINE_URL": self.url, "PLUMBLINE_API_KEY": self.key}
        return _run(arguments, environment, timeout_s)


@pytest.fixture(scope="session")
def plumbline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plumbline]:
    home = tmp_path_factory.mktemp("plumbline")
    ray = LocalRay(home)
    with hub(Contents()) as models, pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_ENDPOINT", models.url)
        try:
            ray.start(TWO_POOLS)
            with control_plane(ray, home, tmp_path_factory.mktemp("models")) as running:
                running.hub = models.contents
                ray.wait_until_ready()
                yield running
        finally:
            ray.stop()


@contextmanager
def control_plane(ray: LocalRay, home: Path, model_root: Path, **settings: str) -> Iterator[Plumbline]:
    """API and controller of a Ray that was started; the API answers. settings: variables of the environment besides."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PLUMBLINE_")}
    environment |= {
        "PLUMBLINE_HOME": str(home),
        "PLUMBLINE_PORT": str(free_port()),
        "PLUMBLINE_SECRET": "a secret of these tests",
        "PLUMBLINE_MODEL_ROOTS": f'["{model_root}"]',
        "PLUMBLINE_RAY_URL": ray.url,
        "PLUMBLINE_RAY_TOKEN": ray.token,
        "PLUMBLINE_SERVE_URL": f"http://127.0.0.1:{ray.serve_port}",
    }
    environment |= settings
    url = f"http://127.0.0.1:{environment['PLUMBLINE_PORT']}"
    assert _run(["db", "upgrade"], environment).returncode == 0
    key = _run(["keys", "create", "--project", "e2e"], environment).stdout.strip()
    environment |= _evaluating(home, url, key)
    running = Plumbline(url, key, home, model_root, ray, environment)
    try:
        running.start_api()
        running.controller.start()
        yield running
    finally:
        running.controller.stop()
        running.api.stop()


@pytest.fixture
def client(plumbline: Plumbline) -> Iterator[Client]:
    with Client(plumbline.url, plumbline.key) as client:
        yield client


def _evaluating(home: Path, url: str, key: str) -> dict[str, str]:
    """Settings under which evaluations may ask this very service as any other server, with the key `own`, and a package
    beside it offers the metric `words`."""
    package = home / "package"
    info = package / "our_metrics-1.dist-info"
    info.mkdir(parents=True)
    (package / "our_metrics.py").write_text("def words(prompt, answer):\n    return len(answer.split())\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-metrics\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[plumbline.metrics]\nwords = our_metrics:words\n")
    return {
        "PLUMBLINE_EVALUATION_ORIGINS": json.dumps([url]),
        "PLUMBLINE_EVALUATION_KEYS": json.dumps({"own": {"origin": url, "key": key}}),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")])),
    }


def _run(
    arguments: "tuple[str, ...] | list[str]", environment: dict[str, str], timeout_s: float = 60
) -> "subprocess.CompletedProcess[str]":
    command = [str(PLUMBLINE), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
