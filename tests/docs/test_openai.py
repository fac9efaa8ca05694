"""The script on docs/openai.md, run as it stands there against the real API while its job is driven to its end."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.session import Database
from service.deployments import service as deployments
from service.jobs import attempts
from service.jobs.reports import take_batch
from service.jobs.repository import AttemptRepository, JobRepository
from service.settings import Settings
from service.spec.reports import ReportBatch
from tests.api.conftest import Server, ada, database, serve, server
from tests.api.conftest import settings as plain_settings
from tests.api.openai.test_generation import Engine
from tests.service.conftest import answers, make_model
from tests.service.test_adapters import write_weights

__all__ = ["ada", "database", "plain_settings", "server"]

ROOT = Path(__file__).parents[2]
(SCRIPT,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "openai.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def settings(plain_settings: Settings) -> Iterator[Settings]:
    for engine in serve(Engine().app):
        yield plain_settings.model_copy(update={"serve_url": engine.url})


async def test_the_script_runs_as_it_stands_there(
    server: Server, ada: dict[str, str], database: Database, settings: Settings
) -> None:
    model = make_model(settings.storage_root / "models" / "tiny")
    write_weights(model / "model.safetensors", {"model.layers.0.self_attn.q_proj.weight": [4, 4]})
    key = ada["Authorization"].removeprefix("Bearer ")
    environment = os.environ | {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": key}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, str(model), cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    job_id = await queued(database)
    published = make_model(settings.storage_root / "models" / job_id)
    (published / "chat_template.jinja").write_text("{{ messages }}")
    async with database.transaction() as session:
        job = await JobRepository(session).get(job_id)
        await attempts.start_attempt(session, job)
    async with database.transaction() as session:
        attempt = await AttemptRepository(session).current(job)
        assert attempt is not None
        batch = ReportBatch.model_validate({"first_seq": 1, "reports": [{"kind": "outcome", "result": "succeeded"}]})
        await take_batch(session, attempt.id, batch, settings)
    async with database.transaction() as session:
        [deployment] = await deployments.all_wanted(session)
        await answers(session, deployment)
    printed, _ = await process.communicate()
    lines = printed.decode().splitlines()
    assert process.returncode == 0
    assert "The job was accepted" in lines[0]
    assert lines[-2:] == [f"succeeded job:{job_id}", "good day"]


async def queued(database: Database) -> str:
    async with asyncio.timeout(60):
        while True:
            async with database.reading() as session:
                if jobs := await JobRepository(session).oldest_queued(1):
                    return jobs[0].id
            await asyncio.sleep(0.05)
