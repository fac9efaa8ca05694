"""The HTTP clients against a real Ray."""

from collections.abc import Callable
from typing import Any

import pytest

from service.cluster.http import ClusterRefused, ClusterUnavailable, connect
from service.cluster.jobs import RayJobs, RayJobStatus
from service.controller.context import Controller
from service.ids import new_id
from service.settings import Settings
from service.spec.pools import Pool
from tests.controller.conftest import FAILS, SLEEPS, until

Make = Callable[..., Controller]


async def _submit(
    jobs: RayJobs, entrypoint: str, *, pool: dict[str, str] | None = None, memory_bytes: int = 2**20
) -> str:
    submission_id, selector = new_id("job"), Pool.CONTROL.selector if pool is None else pool
    await jobs.submit(
        submission_id, entrypoint, env_vars={"A": "1"}, label_selector=selector, memory_bytes=memory_bytes
    )
    return submission_id


async def _ended(jobs: RayJobs, submission_id: str) -> bool:
    job = await jobs.get(submission_id)
    return job is not None and job.status.terminal


async def test_ray_knows_nothing_of_an_unknown_id(make: Make) -> None:
    jobs = make().jobs
    assert await jobs.get("job-unknown") is None
    await jobs.stop("job-unknown")
    assert await jobs.log_tail("job-unknown") == []


async def test_submitting_the_same_id_again_changes_nothing(make: Make) -> None:
    jobs = make().jobs
    submission_id = await _submit(jobs, SLEEPS)
    await jobs.submit(submission_id, FAILS, env_vars={}, label_selector=Pool.CONTROL.selector)

    async def running() -> bool:
        job = await jobs.get(submission_id)
        return job is not None and job.status is RayJobStatus.RUNNING

    await until(running)
    await jobs.stop(submission_id)
    await until(lambda: _ended(jobs, submission_id))
    job = await jobs.get(submission_id)
    assert job is not None
    assert job.status is RayJobStatus.STOPPED
    await jobs.stop(submission_id)


async def test_the_log_tail_is_the_drivers_last_lines(make: Make) -> None:
    jobs = make().jobs
    submission_id = await _submit(jobs, """python -c 'print("\\n".join(str(n) for n in range(100)))'""")
    await until(lambda: _ended(jobs, submission_id))
    assert await jobs.log_tail(submission_id, lines=3) == ["97", "98", "99"]


@pytest.mark.parametrize("asked", [{"pool": {"pool": "in(nowhere)"}}, {"memory_bytes": 2**40}])
async def test_the_driver_waits_for_a_node_that_its_selector_admits_and_has_the_memory(
    make: Make, asked: dict[str, Any]
) -> None:
    jobs = make().jobs
    submission_id = await _submit(jobs, SLEEPS, **asked)
    elsewhere = await _submit(jobs, "python -c pass")
    await until(lambda: _ended(jobs, elsewhere))
    job = await jobs.get(submission_id)
    assert job is not None
    assert job.status is RayJobStatus.PENDING


async def test_a_wrong_token_is_refused_with_the_way_out(settings: Settings) -> None:
    for wrong in (None, settings.model_copy(update={"ray_token": settings.secret}).ray_token):
        client = connect(settings.model_copy(update={"ray_token": wrong}))
        with pytest.raises(ClusterRefused, match="PLUMBLINE_RAY_TOKEN"):
            await RayJobs(client).get("job-1")
        await client.aclose()


async def test_a_cluster_that_is_not_there_is_unavailable(settings: Settings) -> None:
    client = connect(settings.model_copy(update={"ray_url": "http://127.0.0.1:9"}))
    with pytest.raises(ClusterUnavailable, match=r"127\.0\.0\.1:9"):
        await RayJobs(client).get("job-1")
    await client.aclose()
