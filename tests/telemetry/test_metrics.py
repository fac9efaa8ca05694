"""What Prometheus reads of a real application, after real requests, reports and transitions."""

import asyncio
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from api.app import create_app
from service import telemetry
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import ClusterView, Forecast
from service.jobs import attempts
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.jobs.tokens import attempt_token
from service.settings import Settings
from service.spec.reports import Failure, Fault
from service.telemetry import database_metrics, storage_metrics
from service.telemetry.database_metrics import DatabaseMetrics
from service.telemetry.exposition import exposition, served
from tests.api.conftest import problem
from tests.service.conftest import add_job
from tests.telemetry.samples import Samples, names, samples

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()


async def scrape(client: httpx.AsyncClient) -> Samples:
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4"), response.text
    return samples(response.text)


@pytest.fixture
async def attempt(database: Database, settings: Settings) -> tuple[str, dict[str, str]]:
    """An attempt of Ada's only job, and its headers."""
    async with database.transaction() as session:
        job = await add_job(session)
        id = (await attempts.start_attempt(session, job)).id
    return id, {"Authorization": f"Bearer {attempt_token(settings, id)}"}


async def report(client: httpx.AsyncClient, attempt: tuple[str, dict[str, str]], *reports: Any, **more: Any) -> None:
    id, headers = attempt
    batch = {"first_seq": 1, "reports": list(reports)} | more
    response = await client.post(f"/internal/attempts/{id}/reports", json=batch, headers=headers)
    assert response.is_success, response.text


async def test_requests_are_counted_by_route_template_method_and_status(client: httpx.AsyncClient) -> None:
    before = await scrape(client)
    await client.get("/v1/jobs/job-" + "0" * 21)
    await client.get("/v1/jobs/some-secret-that-a-client-put-into-a-path")
    await client.get("/no/such/page/pk-abc")
    await client.request("BREW", "/v1/jobs")
    after = await scrape(client)
    changed = {labels: after[name, labels] - before[name, labels] for name, labels in after if name.endswith("_count")}
    assert changed["GET", "/v1/jobs/{job_id}", "404"] == 2
    assert changed["GET", "unmatched", "404"] == 1
    assert changed["OTHER", "/v1/jobs", "405"] == 1


async def test_what_an_attempt_reports_is_counted_once_even_if_it_is_sent_twice(
    client: httpx.AsyncClient, attempt: tuple[str, dict[str, str]]
) -> None:
    before = await scrape(client)
    planned = {"pairs": 10, "hits": 7, "to_score": 3}
    reports = [
        {"kind": "event", "type": "reference.planned", "stage": "reference", "message": "m", "data": planned},
        {"kind": "event", "type": "stage.completed", "stage": "prepare", "message": "m", "data": {"seconds": 12.5}},
        {"kind": "event", "type": "made.up", "message": "m"},
        {"kind": "metrics", "step": 1, "values": {"tokens": 512, "policy_wait_s": 0.5, "loss": 1}},
        {"kind": "metrics", "step": 1, "split": "held_out", "values": {"tokens": 99, "policy_wait_s": 0.25}},
        {"kind": "metrics", "step": 2, "values": {"tokens": None, "policy_wait_s": -1}},
    ]
    await report(client, attempt, *reports, waited_s=3)
    await report(client, attempt, *reports, waited_s=9)
    after = await scrape(client)

    def added(name: str, *labels: str) -> float:
        return after[name, labels] - before[name, labels]

    assert added("plumbline_reference_pairs_total", "hit") == 7
    assert added("plumbline_reference_pairs_total", "miss") == 3
    assert added("plumbline_stage_seconds_sum", "prepare") == 12.5
    assert added("plumbline_train_steps_total") == 2
    assert added("plumbline_train_tokens_total") == 512
    assert added("plumbline_policy_wait_seconds_total") == 0.75
    assert added("plumbline_report_lag_seconds_sum") == 3
    assert added("plumbline_events_total", "stage.completed") == 1
    assert added("plumbline_events_total", "other") == 1
    assert added("plumbline_job_transitions_total", "running") == 1
    assert added("plumbline_queue_wait_seconds_count") == 1


async def test_a_failed_attempt_is_counted_by_whose_fault_it_was(
    client: httpx.AsyncClient, database: Database, settings: Settings, attempt: tuple[str, dict[str, str]]
) -> None:
    before = await scrape(client)
    await report(client, attempt, {"kind": "outcome", "result": "failed", "failure": _failure(Fault.USER)})
    after = await scrape(client)
    assert (
        after["plumbline_attempts_failed_total", ("user",)] - before["plumbline_attempts_failed_total", ("user",)] == 1
    )


def test_what_alerts_count_is_there_at_zero_before_the_first() -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    program = "import service.telemetry.observe as observe, prometheus_client as exporter\n"
    program += "print(exporter.generate_latest(observe.metrics.REGISTRY).decode())"
    text = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for state in JobState:
        assert f'plumbline_job_transitions_total{{state="{state}"}} 0.0' in text
    for fault in Fault:
        assert f'plumbline_attempts_failed_total{{fault="{fault}"}} 0.0' in text


def _failure(fault: Fault) -> Any:
    return Failure(code="c", message="m", fault=fault).model_dump(mode="json")


async def test_jobs_are_read_from_the_database_by_state_and_the_live_ones_by_project(
    client: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_metrics, "MAX_PROJECTS", 2)
    async with database.transaction() as session:
        for project in ("ada", "ada", "bob", "bob", "cleo", "dora"):
            await add_job(session, project_id=project)
        await add_job(session, state=JobState.FAILED)
    found = await scrape(client)
    assert found["plumbline_jobs", ("queued",)] == 6
    assert found["plumbline_jobs", ("failed",)] == 1
    assert found["plumbline_jobs", ("running",)] == 0
    live = {labels: value for (name, labels), value in found.items() if name == "plumbline_live_jobs"}
    assert live == {("ada", "queued"): 2, ("bob", "queued"): 2, ("other", "queued"): 2}
    assert found["plumbline_database_up", ()] == 1


async def test_gpus_and_the_quality_of_etas_are_read_from_the_database(
    client: httpx.AsyncClient, database: Database
) -> None:
    now, hour = utc_now(), timedelta(hours=1)
    nodes = [{"label": "policy", "gpus": gpus, "cpus": 8, "accelerator": None} for gpus in (4, 2)]
    nodes.append({"label": "reference", "gpus": 1, "cpus": 8, "accelerator": None})
    async with database.transaction() as session:
        session.add(ClusterView(id=1, nodes=nodes, observed_at=now, tried_at=now))
        for state in (JobState.RUNNING, JobState.CANCELLING, JobState.SUCCEEDED):
            (await add_job(session, state=state)).gpus = 1.5
        for late in (timedelta(), 9 * hour):
            job = await add_job(session, state=JobState.SUCCEEDED)
            job.started_at, job.finished_at = now, now + hour + late
            session.add(
                Forecast(
                    job_id=job.id, moment="started", made_at=now, finish_low=now, finish_high=now + 2 * hour,
                    start_low=None, start_high=None,
                )
            )  # fmt: skip
    found = await scrape(client)
    assert (found["plumbline_gpus", ("policy",)], found["plumbline_gpus", ("reference",)]) == (6, 1)
    assert found["plumbline_gpus_held", ()] == 3
    assert found["plumbline_eta_forecasts", ("finish", "started")] == 2
    assert found["plumbline_eta_coverage_ratio", ("finish", "started")] == 0.5
    assert found["plumbline_eta_error_seconds", ("finish", "started")] == 4.5 * 3600
    assert ("plumbline_eta_coverage_ratio", ("start", "queued")) not in found  # nothing was foretold


async def test_the_room_in_the_storage_is_told(client: httpx.AsyncClient, settings: Settings) -> None:
    settings.storage_root.mkdir(parents=True, exist_ok=True)
    found = await scrape(client)
    there = shutil.disk_usage(settings.storage_root)
    assert found["plumbline_storage_bytes", ()] == there.total
    assert 0 < found["plumbline_storage_free_bytes", ()] < there.total


def test_a_storage_that_hangs_has_nothing_free_and_keeps_nobody_waiting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    looks = []

    def hang(root: Path) -> Any:
        looks.append(root)
        answers.wait(60)
        return SimpleNamespace(total=10, free=4)

    monkeypatch.setattr("shutil.disk_usage", hang)
    look = storage_metrics._Look(tmp_path)
    assert look.now() == (0.0, 0.0)
    assert look.now() == (0.0, 0.0)
    assert looks == [tmp_path]  # one look at a time, however often somebody asks
    answers.set()
    assert look._thread is not None
    look._thread.join()
    assert look.now() == (10.0, 4.0)


async def test_a_second_scrape_does_not_ask_the_database_again_at_once(database: Database) -> None:
    metrics = DatabaseMetrics(database)
    first = await metrics.families()
    async with database.transaction() as session:
        await add_job(session)
    assert await metrics.families() is first


async def test_a_database_that_does_not_answer_is_said_and_the_rest_is_still_there(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/no/such/directory/x.sqlite3")
    text = exposition(await DatabaseMetrics(database).families()).decode()
    await database.close()
    assert samples(text)["plumbline_database_up", ()] == 0
    assert "plumbline_jobs" not in names(text)
    assert "plumbline_http_request_seconds" in names(text)


@pytest.fixture
async def guarded(settings: Settings, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings.model_copy(update={"metrics_token": _secret("the-metrics-token")}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


def _secret(value: str) -> Any:
    return Settings(metrics_token=value).metrics_token


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer ünicode"}])
async def test_with_a_token_set_nothing_is_told_without_it(guarded: httpx.AsyncClient, headers: dict[str, str]) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    problem(await guarded.get("/metrics", headers=encoded), 401, "unauthorized")


async def test_the_token_opens_the_metrics(guarded: httpx.AsyncClient) -> None:
    response = await guarded.get("/metrics", headers={"Authorization": "Bearer the-metrics-token"})
    assert response.status_code == 200


async def test_in_production_there_are_no_metrics_without_a_token(settings: Settings, database: Database) -> None:
    app = create_app(settings.model_copy(update={"environment": "production"}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        problem(await client.get("/metrics"), 404, "not_found")


@pytest.fixture
async def controllers_port(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    from api.cli.processes import free_port

    alone = settings.model_copy(update={"metrics_port": free_port()})
    url = f"http://127.0.0.1:{alone.metrics_port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        with served(alone):
            yield client
        with pytest.raises(httpx.ConnectError):
            await client.get("/metrics")


async def test_the_controller_answers_on_a_port_of_its_own_while_it_runs(controllers_port: httpx.AsyncClient) -> None:
    found = names((await controllers_port.get("/metrics")).text)
    assert "plumbline_reconcile_seconds" in found
    assert "plumbline_live_jobs" not in found  # these name projects, and nothing asks for a token here


async def test_a_controller_whose_loop_stands_still_is_not_healthy(
    controllers_port: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await controllers_port.get("/healthz")).status_code == 200
    monkeypatch.setattr(telemetry.exposition, "STOOD_STILL_S", 1.5)
    url = controllers_port.base_url.join("/healthz")

    def ask() -> None:
        while httpx.get(url, trust_env=False).status_code == 200:
            time.sleep(0.1)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout=60)  # in the loop's own thread
    assert not asking.is_alive()
    await asyncio.sleep(1.2)
    assert (await controllers_port.get("/healthz")).status_code == 200


async def test_every_metric_is_on_the_page_and_no_other(client: httpx.AsyncClient) -> None:
    documented = set(re.findall(r"^\| `(plumbline_\w+)", PAGE, re.MULTILINE))
    assert documented == names((await client.get("/metrics")).text)


def test_the_alerts_on_the_page_ask_for_metrics_that_there_are() -> None:
    rules = PAGE.partition("```yaml\ngroups:")[2].partition("```")[0]
    asked = set(re.findall(r"plumbline_\w+", rules))
    documented = set(re.findall(r"^\| `(plumbline_\w+)", PAGE, re.MULTILINE))
    assert asked
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in asked} <= documented


async def test_a_reconciler_that_meets_trouble_is_counted(settings: Settings, database: Database) -> None:
    from service.cluster.http import connect
    from service.controller import loop
    from service.controller.context import make_controller

    async with database.transaction() as session:
        await attempts.start_attempt(session, await add_job(session))
        assert await JobRepository(session).count_on_cluster() == 1
    client = connect(settings.model_copy(update={"ray_url": "http://127.0.0.1:9"}))
    before = samples(exposition().decode())
    await loop._step(make_controller(settings, database, client), loop.start.reconcile, {})
    await client.aclose()
    after = samples(exposition().decode())
    for name in ("plumbline_reconcile_troubles_total", "plumbline_reconcile_seconds_count"):
        assert after[name, ("start",)] > before[name, ("start",)]  # others of this process are counted too
    ended = "plumbline_reconciled_timestamp_seconds", ("start",)
    assert after[ended] == before[ended]
