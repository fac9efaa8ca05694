"""The API under load: submissions, reads from a full database, event streams, large uploads; on SQLite and PostgreSQL.

    make bench-control-plane       (or: python benchmarks/control_plane.py --databases postgresql --only post read)

One API process with its defaults, but for rate limits; the load comes from another process on loopback. PostgreSQL is
started for this, without fsync, as in the tests: what is measured is our side of it.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests and benchmarks, when run as a script

from api.cli.processes import free_port
from benchmarks import control_plane_rows as rows
from service.db.migrate import upgrade
from service.db.session import Database
from service.db.tables import Job
from service.jobs.attempts import start_attempt
from service.jobs.repository import JobRepository
from service.jobs.tokens import attempt_token
from service.keys.service import create_key
from service.settings import Settings
from tests.databases import Postgres, postgres, sqlite_url
from tests.service.conftest import add_job, make_model

LOAD = Path(__file__).parent / "control_plane_load.py"
PROJECT = "bench"
SECRET = "a secret of this benchmark"
ROW = b'{"prompt": "Is the earth round?", "chosen": "Yes, nearly.", "rejected": "Look it up yourself."}\n'


@dataclass
class Bench:
    """A running API on a database of its own."""

    settings: Settings
    database: Database
    headers: dict[str, str]
    process: psutil.Process

    def load(self, kind: str, **order: Any) -> dict[str, Any]:
        """What the load's process found, with the API's memory and CPU time meanwhile."""
        before = self.process.memory_info().rss
        cpu = sum(self.process.cpu_times()[:2])
        peak = Peak(self.process)
        order |= {"kind": kind, "url": self.settings.public_url, "headers": self.headers}
        loading = subprocess.Popen([sys.executable, LOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert loading.stdin is not None
        assert loading.stdout is not None
        loading.stdin.write(json.dumps(order))
        loading.stdin.close()
        found: dict[str, Any] = {}
        for line in loading.stdout:
            told = json.loads(line)
            if "open" in told:
                grown = self.process.memory_info().rss - before
                found["kib_per_stream"] = round(grown / told["open"] / 1024, 1)
            else:
                found |= told
        if loading.wait():
            raise SystemExit(f"the load '{kind}' failed")
        found["api_cpu_s"] = round(sum(self.process.cpu_times()[:2]) - cpu, 1)
        found["api_mib_before_and_peak"] = [before // 2**20, peak.stop() // 2**20]
        return found


class Peak:
    """The largest memory of a process from now to `stop`, looked at twenty times a second."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._largest, self._over = process, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Bytes."""
        self._over.set()
        self._thread.join()
        return self._largest

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self._largest = max(self._largest, self._process.memory_info().rss)


@contextmanager
def running(url: str) -> Iterator[Bench]:
    home = Path(tempfile.mkdtemp(prefix="plumbline-bench-"))
    settings = Settings(home=home, database_url=url, port=free_port(), secret=SECRET, requests_per_minute=10**9)
    environment = os.environ | {
        "PLUMBLINE_HOME": str(home),
        "PLUMBLINE_DATABASE_URL": url,
        "PLUMBLINE_PORT": str(settings.port),
        "PLUMBLINE_SECRET": SECRET,
        "PLUMBLINE_REQUESTS_PER_MINUTE": "1000000000",
    }
    upgrade(url)
    command = [sys.executable, "-c", "from api.cli.main import app; app()", "api"]
    with (home / "api.log").open("wb") as log:
        api = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=Path(__file__).parents[1])
    try:
        while not _ready(settings.public_url):
            assert api.poll() is None, (home / "api.log").read_text()
            time.sleep(0.1)
        database = Database(url)
        key = asyncio.run(with_database(database, _key))
        yield Bench(settings, Database(url), {"Authorization": f"Bearer {key}"}, psutil.Process(api.pid))
    finally:
        api.terminate()
        api.wait()
        shutil.rmtree(home)


async def with_database(database: Database, work: Any, *arguments: Any) -> Any:
    """`work`, in an event loop that leaves no connection behind."""
    try:
        return await work(database, *arguments)
    finally:
        await database.close()


async def _key(database: Database) -> str:
    async with database.transaction() as session:
        return (await create_key(session, project_id=PROJECT, name="bench"))[1]


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def bench_post(bench: Bench, arguments: argparse.Namespace) -> None:
    model = make_model(bench.settings.storage_root / "models" / "tiny")
    with httpx.Client(base_url=bench.settings.public_url, headers=bench.headers, trust_env=False) as client:
        file_id = client.post("/v1/files", files={"file": ("pairs.jsonl", ROW * 200)}).json()["id"]
    body = {"model": str(model), "data": {"train": file_id}}
    found = bench.load("post", body=body, rate=100, seconds=arguments.seconds)
    show("POST /v1/jobs", found | {"jobs_in_database": asyncio.run(with_database(bench.database, _count_jobs))})


async def _count_jobs(database: Database) -> int:
    async with database.reading() as session:
        return (await session.scalars(select(func.count()).select_from(Job))).one()


def bench_read(bench: Bench, arguments: argparse.Namespace) -> None:
    began = time.perf_counter()
    ids = asyncio.run(with_database(bench.database, _fill, arguments.jobs, arguments.metrics))
    print(f"    filled in {time.perf_counter() - began:.0f} s", flush=True)
    middle, step = ids[len(ids) // 2], max(1, len(ids) // 97)
    paths = {
        "list": ["/v1/jobs?limit=100"],
        "list, from the middle": [f"/v1/jobs?limit=100&cursor={middle}"],
        "filter, state": ["/v1/jobs?limit=100&state=failed"],
        "filter, state that none has": ["/v1/jobs?limit=100&state=running"],
        "filter, label": ["/v1/jobs?limit=100&label=team=blue"],
        "filter, label, OpenAI's list": ["/v1/fine_tuning/jobs?limit=100&metadata[team]=blue"],
        "detail": [f"/v1/jobs/{one}" for one in ids[::step]],
        "curve of 100 steps": [f"/v1/jobs/{one}/metrics/curve" for one in ids[1::step]],
        "curve of 20,000 steps": [f"/v1/jobs/{ids[0]}/metrics/curve"],
    }
    for name, found in bench.load("get", paths=paths, count=200).items():
        show(name, found)


async def _fill(database: Database, num_jobs: int, num_metrics: int) -> list[str]:
    ids = await rows.add_jobs(database, PROJECT, num_jobs)
    await rows.add_metrics(database, PROJECT, ids[:1], 20_000)
    await rows.add_metrics(database, PROJECT, ids[1:], max(1, num_metrics // num_jobs))
    await rows.settle(database)
    return ids


def bench_streams(bench: Bench, arguments: argparse.Namespace) -> None:
    for num_jobs, per_job in ((20, 50), (1, 1000)):
        attempts = asyncio.run(with_database(bench.database, _running_jobs, num_jobs, bench.settings))
        order = {"jobs": list(attempts), "attempts": attempts, "per_job": per_job, "rate": 200}
        found = bench.load("streams", **order, seconds=min(30, arguments.seconds))
        show(f"streams, {per_job} of each of {num_jobs} jobs", found)


async def _running_jobs(database: Database, count: int, settings: Settings) -> dict[str, dict[str, str]]:
    made: dict[str, dict[str, str]] = {}
    for _ in range(count):
        async with database.transaction() as session:
            job = await add_job(session, project_id=PROJECT)
            attempt = await start_attempt(session, await JobRepository(session).get(job.id))
            made[job.id] = {"id": attempt.id, "token": attempt_token(settings, attempt.id)}
    return made


def bench_upload(bench: Bench, arguments: argparse.Namespace) -> None:
    show("upload", bench.load("upload", mebibytes=arguments.upload_mib, break_after=None))
    files = bench.settings.storage_root / "files"
    before = sorted(files.iterdir())
    found = bench.load("upload", mebibytes=arguments.upload_mib, break_after=arguments.upload_mib // 4)
    deadline = time.monotonic() + 10
    while sorted(files.iterdir()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    show("broken upload", found | {"left_behind": len(sorted(files.iterdir())) - len(before)})


def show(name: str, found: dict[str, Any]) -> None:
    told = ", ".join(f"{key} {json.dumps(value)}" for key, value in found.items()) if isinstance(found, dict) else found
    print(f"  {name}: {told}", flush=True)


BENCHES = {"post": bench_post, "read": bench_read, "streams": bench_streams, "upload": bench_upload}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--only", nargs="+", choices=tuple(BENCHES), default=list(BENCHES))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--metrics", type=int, default=10_000_000, help="steps, of all jobs together")
    parser.add_argument("--upload-mib", type=int, default=2047, help="of the 2048 that are allowed")
    arguments = parser.parse_args()
    for kind in arguments.databases:
        with postgres(shared_buffers="512MB") if kind == "postgresql" else nullcontext() as server:
            for name in arguments.only:
                print(f"{kind}: {name}", flush=True)
                with tempfile.TemporaryDirectory() as directory, running(fresh(server, directory)) as bench:
                    BENCHES[name](bench, arguments)


def fresh(server: Postgres | None, directory: str) -> str:
    if server is None:
        return sqlite_url(Path(directory) / "plumbline.sqlite3")
    return server.url(server.create(migrated=False))


if __name__ == "__main__":
    main()
