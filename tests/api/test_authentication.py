"""Strangers: what they get on every route, whatever else is wrong with what they send."""

import re
from typing import Any

import httpx
import pytest

from service.db.session import Database
from service.db.tables import Attempt, Job
from service.jobs import attempts
from service.jobs.repository import JobRepository
from service.jobs.tokens import attempt_token
from service.settings import Settings
from service.spec.reports import Failure, Fault
from tests.api.conftest import key_of, problem
from tests.service.conftest import add_job

BEAT = {"first_seq": 1, "reports": []}


async def routes(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Every method and path that needs a key or a token."""
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    found = [
        (method.upper(), re.sub(r"\{\w+\}", "0", path))
        for path, item in document["paths"].items()
        for method in item
        if path.startswith(("/v1/", "/internal/"))
    ]
    assert len(found) > 20
    return found


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 5000, b'{"a": NaN}', b"x" * 30_000], ids=["cut", "deep", "no number", "too large"]
)
async def test_a_stranger_gets_401_on_every_route_whatever_the_body(client: httpx.AsyncClient, content: bytes) -> None:
    del client.headers["Authorization"]
    for method, path in await routes(client):
        answer = await client.request(method, path, content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, path) == (401, path)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_not_a_byte_of_a_strangers_body_is_read(client: httpx.AsyncClient) -> None:
    async def body() -> Any:
        pytest.fail("the body was asked for")
        yield b""

    del client.headers["Authorization"]
    for path in ("/v1/files", "/v1/jobs", "/internal/attempts/job-1/reports"):
        problem(await client.post(path, content=body()), 401, "unauthorized")


async def test_a_stranger_does_not_learn_which_paths_there_are(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    problem(await client.get("/v1/nothing"), 401, "unauthorized")
    problem(await client.put("/v1/jobs"), 401, "unauthorized")


async def test_two_credentials_are_none(client: httpx.AsyncClient, database: Database) -> None:
    """A proxy may look at one of them and we at the other."""
    bob = await key_of(database, "bob")
    mine = client.headers.pop("Authorization")
    for first, second in ((mine, bob["Authorization"]), (mine, mine), ("Bearer wrong", mine)):
        answer = await client.get("/v1/jobs", headers=[("Authorization", first), ("Authorization", second)])
        problem(answer, 401, "unauthorized")
    assert (await client.get("/v1/jobs", headers={"Authorization": mine.replace("Bearer", "bearer")})).is_success


@pytest.fixture
async def attempt(database: Database) -> Attempt:
    async with database.transaction() as session:
        return await attempts.start_attempt(session, await add_job(session))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_forged_token_opens_nothing(client: httpx.AsyncClient, attempt: Attempt, settings: Settings) -> None:
    good = attempt_token(settings, attempt.id)
    another_secret = attempt_token(settings.model_copy(update={"secret": type(settings.secret)("x")}), attempt.id)
    path = f"/internal/attempts/{attempt.id}"
    for forged in (another_secret, good[:-1], good + "0", good.upper(), attempt.id, "0" * 64):
        problem(await client.get(path, headers=bearer(forged)), 401, "unauthorized")
        problem(await client.post(f"{path}/reports", json=BEAT, headers=bearer(forged)), 401, "unauthorized")
    assert (await client.get(path, headers=bearer(good))).status_code != 401


async def test_a_token_for_an_attempt_that_was_never_made_finds_nothing(
    client: httpx.AsyncClient, attempt: Attempt, settings: Settings
) -> None:
    """Only whoever has the secret can make one."""
    unknown = f"{attempt.job_id}-7"
    headers = bearer(attempt_token(settings, unknown))
    problem(await client.post(f"/internal/attempts/{unknown}/reports", json=BEAT, headers=headers), 404, "not_found")


async def test_a_token_is_good_for_nothing_once_its_attempt_has_ended_or_was_replaced(
    client: httpx.AsyncClient, database: Database, attempt: Attempt, settings: Settings
) -> None:
    headers = bearer(attempt_token(settings, attempt.id))
    event = {"kind": "event", "type": "data.said", "message": "too late"}
    late = {"first_seq": 1, "reports": [event]}
    path = f"/internal/attempts/{attempt.id}"
    async with database.transaction() as session:
        failure = Failure(code="lost", message="The node went away.", fault=Fault.SYSTEM)
        await attempts.fail_attempt(session, attempt, failure, settings)
    problem(await client.post(f"{path}/reports", json=late, headers=headers), 409, "attempt_superseded")
    async with database.transaction() as session:
        job: Job = await JobRepository(session).get(attempt.job_id)
        newer = await attempts.start_attempt(session, job)
    problem(await client.get(path, headers=headers), 409, "attempt_superseded")
    problem(await client.post(f"{path}/reports", json=late, headers=headers), 409, "attempt_superseded")
    problem(await client.get(f"/internal/attempts/{newer.id}", headers=headers), 401, "unauthorized")
    events = (await client.get(f"/v1/jobs/{attempt.job_id}/events")).json()["data"]
    assert "too late" not in [one["message"] for one in events]
