"""A real API process on a real database, and attempts that speak to it as the cluster's do."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from api.cli.processes import free_port
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.ids import new_id
from service.jobs.attempts import start_attempt
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import DeploymentState, JobState
from service.jobs.tokens import attempt_token
from service.settings import Settings
from service.spec import AlignmentJob
from tests.service.conftest import answers, make_model

PROJECT = "ada"
SERVE = """
import uvicorn
from api.app import create_app
from service.settings import Settings
settings = Settings()
uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning")
"""


def offer_metric(directory: Path) -> Path:
    """As if a package with the metric `words` were installed there."""
    info = directory / "our_metrics-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-metrics\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[plumbline.metrics]\nwords = our_metrics:words\n")
    (directory / "our_metrics.py").write_text("def words(prompt, answer):\n    return len(answer.split())\n")
    return directory


class ApiProcess:
    """The API as a process of its own, which a test may kill and start again on the same data."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._log = settings.home / "api.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the API says that it is ready."""
        environment = {
            **os.environ,
            "PLUMBLINE_HOME": str(self.settings.home),
            "PLUMBLINE_PORT": str(self.settings.port),
            "PLUMBLINE_SECRET": self.settings.secret.get_secret_value() if self.settings.secret else "",
            "PLUMBLINE_STREAM_LIFETIME_S": str(self.settings.stream_lifetime_s),
            "PLUMBLINE_SERVE_URL": self.settings.serve_url,
            "PLUMBLINE_PREVIEW_TIMEOUT_S": "300",
            "PYTHONPATH": f"{offer_metric(self.settings.home / 'packages')}:{os.environ.get('PYTHONPATH', '')}",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-c", SERVE], env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self.settings.public_url}/readyz").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"the API did not become ready:\n{self._log.read_text()[-4000:]}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass
class Attempt:
    """What a job's driver on the cluster would be: it reports over HTTP with its token."""

    settings: Settings
    job_id: str
    attempt_id: str
    _sent: int = 0

    async def report(self, *reports: dict[str, Any]) -> None:
        token = attempt_token(self.settings, self.attempt_id)
        async with httpx.AsyncClient(base_url=self.settings.public_url) as http:
            answer = await http.post(
                f"/internal/attempts/{self.attempt_id}/reports",
                json={"first_seq": self._sent + 1, "reports": reports},
                headers={"Authorization": f"Bearer {token}"},
            )
        answer.raise_for_status()
        self._sent += len(reports)

    async def event(self, type: str, message: str, **more: Any) -> None:
        await self.report({"kind": "event", "type": type, "message": message, **more})

    async def progress(self, stage: str, done: int, total: int, unit: str) -> None:
        await self.report({"kind": "progress", "stage": stage, "done": done, "total": total, "unit": unit})

    async def metrics(self, step: int, split: str = "train", **values: float) -> None:
        named = {name.replace("__", "/"): value for name, value in values.items()}
        await self.report({"kind": "metrics", "step": step, "split": split, "values": named})

    async def succeed(self) -> None:
        await self.report({"kind": "outcome", "result": "succeeded"})

    async def fail(self, **failure: Any) -> None:
        await self.report({"kind": "outcome", "result": "failed", "failure": failure})


@dataclass
class Backend:
    settings: Settings
    api: ApiProcess
    database: Database
    key: str

    @property
    def url(self) -> str:
        return self.settings.public_url

    async def queued(self, name: str, **spec: Any) -> str:
        """A queued job's ID."""
        wanted = {"name": name, "model": "/models/tiny", "data": {"train": "file-" + "0" * 21}, "serve": False}
        job = Job(
            id=new_id("job"),
            project_id=PROJECT,
            body_sha256="0" * 64,
            spec=AlignmentJob.model_validate(wanted | spec).model_dump(mode="json"),
            state=JobState.QUEUED,
            progress={},
            num_attempts=0,
            priority=spec.get("priority", 0),
            last_event=0,
            last_metric=0,
            created_at=utc_now(),
        )
        async with self.database.transaction() as session:
            session.add(job)
            await session.flush()
            await append_event(session, job, "job.queued", "The job waits for its turn.")
        return job.id

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    async def ready_to_post(self, name: str) -> dict[str, Any]:
        """The specification of a job that the API takes: its model and its rows are there."""
        model = self.settings.storage_root / "models" / name
        make_model(model)
        async with self.client() as api:
            rows = b'{"prompt": "q", "chosen": "a", "rejected": "b"}'
            file = (await api.post("/v1/files", files={"file": ("pairs.jsonl", rows)})).raise_for_status().json()
        return {"model": str(model), "data": {"train": file["id"]}}

    async def deployment(self, job_id: str, state: DeploymentState, message: str | None = None) -> None:
        """What the controller writes down when it has seen the job's application on Serve change."""
        async with self.database.transaction() as session:
            job = await JobRepository(session).get(job_id)
            deployment = await deployments.get(session, job)
            if state is DeploymentState.READY:
                await answers(session, deployment)
            else:
                await deployments.set_state(session, deployment, state, message)

    async def running(self, name: str, **spec: Any) -> Attempt:
        """A job whose attempt has reported once."""
        driver = await self.started(await self.queued(name, **spec))
        await driver.event("stage.started", "Reading the rows.", stage="prepare")
        return driver

    async def started(self, job_id: str) -> Attempt:
        """The next attempt of a queued job."""
        async with self.database.transaction() as session:
            attempt = await start_attempt(session, await JobRepository(session).get(job_id))
        return Attempt(self.settings, job_id, attempt.id)

    async def succeeded(self, name: str, **spec: Any) -> Attempt:
        driver = await self.running(name, **spec)
        for step, loss in enumerate((0.693, 0.512), start=1):
            await driver.metrics(
                step, loss=loss, rewards__margins=0.5 * step, rewards__chosen=0.2, rewards__rejected=-0.3
            )
        await self.finished(driver, steps=2)
        return driver

    async def finished(self, driver: Attempt, steps: int) -> None:
        """The job's stages run to their end, and its model is there."""
        await driver.progress("prepare", 64, 64, "rows")
        await driver.progress("reference", 0, 0, "pairs")
        await driver.progress("train", steps, steps, "steps")
        make_model(self.settings.storage_root / "models" / driver.job_id)
        await driver.progress("publish", 1000, 1000, "bytes")
        await driver.succeed()


def settings_in(home: Path, **more: Any) -> Settings:
    # A short lifetime makes every stream of every test go through reconnecting.
    return Settings(home=home, port=free_port(), secret="a secret of these tests", stream_lifetime_s=2, **more)
