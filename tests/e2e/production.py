"""The production shape on one machine: two of API and of controller behind one address, PostgreSQL, an S3 server and
a Ray of a head and four labelled nodes that asks for its token and keeps its state in Redis."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import boto3
import httpx

from api.cli.processes import end, free_port, spawn
from api.client import Client
from service.spec.pools import Pool
from tests.databases import Postgres, postgres
from tests.e2e.balancer import balanced
from tests.e2e.conftest import PLUMBLINE, START_TIMEOUT_S, Service
from tests.e2e.pods import HEAD, PodsOfRay, Redis
from tests.e2e.scenario import wait_for
from tests.s3_server import credentials

BUCKET = "production"
LEASE_S = 120  # far longer than anybody waits here: only a lease that was given up is taken


@dataclass
class S3:
    """`tests.e2e.kept_s3` as a process that can be started again."""

    home: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it answers."""
        program = [sys.executable, str(Path(__file__).with_name("kept_s3.py")), str(self.port), str(self.home / "s3")]
        self.process = spawn(program, env=dict(os.environ), log=self.home / "logs" / "s3.log")
        wait_for("an answer of the S3 server", lambda: answers(self.url), START_TIMEOUT_S)

    def stop(self) -> None:
        if self.process is not None:
            end([self.process], grace_s=10)

    def client(self) -> Any:
        said = credentials(self.url)
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=said["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=said["AWS_SECRET_ACCESS_KEY"],
            region_name=said["AWS_DEFAULT_REGION"],
        )

    def fetch(self, prefix: str, target: Path) -> None:
        """Every object below `prefix` as a file below `target`."""
        client = self.client()
        for found in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]:
            path = target / found["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, found["Key"], str(path))


@dataclass
class Api(Service):
    """One `plumbline api`, with the address that is its own."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['PLUMBLINE_PORT']}"

    def start_ready(self) -> None:
        self.start()
        wait_for("an API that is ready", lambda: answers(f"{self.url}/readyz"), START_TIMEOUT_S)


@dataclass
class Production:
    """url: leads to either API. model_root: a directory that jobs may name models in."""

    url: str
    model_root: Path
    environment: dict[str, str]
    ray: PodsOfRay
    redis: Redis
    postgres: Postgres
    database: str
    s3: S3
    apis: list[Api]
    controllers: list[Service]
    key: str = ""

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A `plumbline` command, beside the control plane."""
        command = [str(PLUMBLINE), *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=300, check=False, cwd=self.model_root
        )

    def client(self, url: str | None = None) -> Client:
        """Of one API, or of whichever the balancer chooses."""
        return Client(url or self.url, self.key)

    def leader(self) -> Service | None:
        """The controller that holds the lease; None while nobody does."""
        held_by = asyncio.run(self._holder())
        alive = (one for one in self.controllers if one.process is not None and one.process.poll() is None)
        return next((one for one in alive if one.process and held_by.endswith(f":{one.process.pid}")), None)

    async def _holder(self) -> str:
        url = self.postgres.url(self.database).replace("+asyncpg", "")
        connection = await asyncpg.connect(url)
        try:
            holder = await connection.fetchval("SELECT holder FROM leases WHERE name = 'controller'")
        finally:
            await connection.close()
        return str(holder)


@contextmanager
def production(home: Path, model_root: Path) -> Iterator[Production]:
    """Everything has started; its end leaves nothing behind."""
    (home / "logs").mkdir()
    (home / "storage").mkdir()
    address, ports = free_port(), (free_port(), free_port())
    redis, s3 = Redis(home), S3(home)
    ray = PodsOfRay(home, {HEAD: redis.environment, Pool.CONTROL: credentials(s3.url)})
    with ExitStack() as stack:
        server = stack.enter_context(postgres())
        database = server.create(migrated=False)
        s3.start()
        stack.callback(s3.stop)
        s3.client().create_bucket(Bucket=BUCKET)
        stack.enter_context(balanced(address, ports))
        url = f"http://127.0.0.1:{address}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PLUMBLINE_")}
        environment |= credentials(s3.url) | {
            "PLUMBLINE_ENVIRONMENT": "production",
            "PLUMBLINE_HOME": str(home / "none"),  # nothing may be kept there
            "PLUMBLINE_SECRET": "a secret of these tests",
            "PLUMBLINE_DATABASE_URL": server.url(database),
            "PLUMBLINE_STORAGE": str(home / "storage"),
            "PLUMBLINE_FILES_URL": f"s3://{BUCKET}/files",
            "PLUMBLINE_MODELS_URL": f"s3://{BUCKET}/models",
            "PLUMBLINE_MODEL_ROOTS": f'["{model_root}"]',
            "PLUMBLINE_API_URL": url,
            "PLUMBLINE_RAY_URL": ray.url,
            "PLUMBLINE_RAY_TOKEN": ray.token,
            "PLUMBLINE_SERVE_URL": f"http://127.0.0.1:{ray.serve_port}",
            "PLUMBLINE_SERVING_DEVICE": "cpu",
            "PLUMBLINE_LEASE_S": str(LEASE_S),
        }
        logs = home / "logs"
        apis = [Api("api", environment | {"PLUMBLINE_PORT": str(port)}, logs / f"api-{port}.log") for port in ports]
        controllers = [Service("controller", environment, logs / f"controller-{number}.log") for number in (1, 2)]
        running = Production(url, model_root, environment, ray, redis, server, database, s3, apis, controllers)
        redis.start()
        stack.callback(redis.stop)
        stack.callback(ray.stop)
        ray.start([HEAD, *Pool])
        upgraded = running.run("db", "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        running.key = running.run("keys", "create", "--project", "production", "--role", "admin").stdout.strip()
        for one in (*apis, *controllers):
            stack.callback(one.stop)
        for api in apis:
            api.start_ready()
        for controller in controllers:
            controller.start()
        ray.wait_until_ready()
        yield running


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False
