from typing import Any

import httpx

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Metric
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from tests.api.conftest import problem


async def test_a_sweep_is_made_looked_at_and_cancelled(
    client: httpx.AsyncClient, body: dict[str, Any], bob: dict[str, str]
) -> None:
    asked = {"name": "betas", "base": body, "grid": {"losses.0.beta": [0.1, 0.3]}}
    key = {"Idempotency-Key": "once"}
    made = await client.post("/v1/sweeps", json=asked, headers=key)
    sweep = made.json()
    assert made.status_code == 201, sweep
    assert (sweep["object"], sweep["done"], sweep["states"], sweep["best"]) == ("sweep", False, {"queued": 2}, None)
    assert [one["changes"] for one in sweep["jobs"]] == [{"losses.0.beta": 0.1}, {"losses.0.beta": 0.3}]
    again = await client.post("/v1/sweeps", json=asked, headers=key)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (sweep, "true")
    job = (await client.get(f"/v1/jobs/{sweep['jobs'][0]['job_id']}")).json()
    assert job["sweep_id"] == sweep["id"]

    assert (await client.get(f"/v1/sweeps/{sweep['id']}")).json() == sweep
    listed = (await client.get("/v1/sweeps")).json()
    assert ([one["id"] for one in listed["data"]], listed["next_cursor"]) == ([sweep["id"]], None)
    cancelled = await client.post(f"/v1/sweeps/{sweep['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["states"], cancelled.json()["done"]) == (
        202,
        {"cancelled": 2},
        True,
    )

    assert (await client.get("/v1/sweeps", headers=bob)).json()["data"] == []
    problem(await client.get(f"/v1/sweeps/{sweep['id']}", headers=bob), 404, "not_found")
    problem(await client.post(f"/v1/sweeps/{sweep['id']}/cancel", headers=bob), 404, "not_found")


async def test_the_best_of_a_sweep_goes_by_the_metric_that_is_asked_for(
    client: httpx.AsyncClient, body: dict[str, Any], database: Database
) -> None:
    asked = {"base": body, "changes": [{"training": {"seed": seed}} for seed in range(3)]}
    sweep = (await client.post("/v1/sweeps", json=asked)).json()
    ids = [one["job_id"] for one in sweep["jobs"]]
    async with database.transaction() as session:
        for job_id, loss, accuracy in zip(ids, (0.5, 0.4, 0.1), (0.6, 0.9, 1.0), strict=True):
            row = {"job_id": job_id, "number": 1, "attempt": 1, "created_at": utc_now()}
            session.add(Metric(**row, split="held_out", step=1, values={"loss": loss, "accuracy": accuracy}))
        for job_id in ids[:2]:  # the third has not succeeded
            (await JobRepository(session).get(job_id)).state = JobState.SUCCEEDED
    path = f"/v1/sweeps/{sweep['id']}"
    assert (await client.get(path)).json()["best"] == ids[1]
    worst = (await client.get(path, params={"metric": "held_out.accuracy", "goal": "min"})).json()
    assert (worst["best"], [one["value"] for one in worst["jobs"]]) == (ids[0], [0.6, 0.9, 1.0])
    assert (await client.get(path, params={"metric": "train.loss"})).json()["best"] is None
    problem(await client.get(path, params={"metric": "loss"}), 422, "invalid_request")


async def test_what_is_wrong_with_a_sweep_is_told(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    problem(await client.post("/v1/sweeps", json={"base": body}), 422, "invalid_request")
    told = problem(
        await client.post("/v1/sweeps", json={"base": body, "grid": {"losses.0.beta": [0.1, -1]}}),
        422,
        "invalid_request",
    )
    assert "losses.0.beta" in told["detail"]
    deep: Any = 1
    for _ in range(100):
        deep = {"a": deep}
    problem(await client.post("/v1/sweeps", json={"base": body, "changes": [deep]}), 422, "invalid_request")
    job = (await client.post("/v1/jobs", json=body)).json()
    problem(await client.post(f"/v1/jobs/{job['id']}/clone", json=deep), 422, "invalid_request")
