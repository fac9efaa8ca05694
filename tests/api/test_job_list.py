"""What the list of jobs can be asked for, and what it tells beside the jobs themselves."""

from typing import Any

import httpx
import pytest

from service.clock import utc_now
from service.db.session import Database
from service.ids import new_id
from service.jobs.attempts import start_attempt
from service.jobs.states import JobState
from service.jobs.tokens import attempt_token
from service.keys.roles import Role
from service.keys.service import create_key
from service.settings import Settings
from service.spec import AlignmentJob
from tests.api.conftest import key_of, problem
from tests.api.test_queue import POLICY, SHARED, see
from tests.databases import KINDS
from tests.service.conftest import add_job

SPEC = AlignmentJob.model_validate({"model": "/models/tiny", "data": {"train": "file-" + "0" * 21}})


async def add(database: Database, name: str, **columns: Any) -> str:
    async with database.transaction() as session:
        spec = SPEC.model_dump(mode="json") | {"name": name} | columns.pop("spec", {})
        return (await add_job(session, id=new_id("job"), spec=spec, **columns)).id


async def names(client: httpx.AsyncClient, **params: Any) -> list[str]:
    answer = await client.get("/v1/jobs", params=params)
    assert answer.status_code == 200, answer.text
    return [job["name"] for job in answer.json()["data"]]


@pytest.mark.parametrize("database_url", KINDS, indirect=True)
async def test_a_search_finds_words_in_any_order_and_only_in_the_project(
    client: httpx.AsyncClient, database: Database
) -> None:
    id = await add(database, "Helpful Qwen", spec={"metadata": {"team": "assistants"}})
    await add(database, "harmless qwen", spec={"model": {"source": "hf:Qwen/Qwen3-4B"}})
    await add(database, "Helpful Qwen", project_id="bob")
    await add(database, "Helpful Qwen", deleted_at=utc_now())
    assert await names(client, q="qwen helpful") == ["Helpful Qwen"]
    assert await names(client, q="qwen3-4b") == ["harmless qwen"]
    assert await names(client, q="team=assistants") == ["Helpful Qwen"]
    assert await names(client, q=id[4:]) == ["Helpful Qwen"]
    assert await names(client, q="sigmoid qwen") == ["harmless qwen", "Helpful Qwen"]


@pytest.mark.parametrize("database_url", KINDS, indirect=True)
async def test_a_search_takes_wildcards_and_quotes_as_they_are(client: httpx.AsyncClient, database: Database) -> None:
    await add(database, "100% done")
    await add(database, "1000 done")
    assert await names(client, q="100%") == ["100% done"]
    assert await names(client, q="_00") == []
    assert await names(client, q="' OR 1=1 --") == []
    assert await names(client, q="\0") == []


@pytest.mark.parametrize("database_url", KINDS, indirect=True)
async def test_filters_are_combined_and_pages_go_on_under_them(client: httpx.AsyncClient, database: Database) -> None:
    for index in range(5):
        await add(database, f"a{index}", state=JobState.FAILED, owner="eve")
        await add(database, f"b{index}", state=JobState.QUEUED, owner="eve")
    await add(database, "other", state=JobState.FAILED, owner="mallory")
    assert await names(client, state=["failed", "succeeded"], owner="eve") == ["a4", "a3", "a2", "a1", "a0"]
    first = (await client.get("/v1/jobs", params={"state": "failed", "q": "a", "limit": 3, "owner": "eve"})).json()
    rest = await names(client, state="failed", q="a", owner="eve", cursor=first["next_cursor"])
    assert ([job["name"] for job in first["data"]], rest) == (["a4", "a3", "a2"], ["a1", "a0"])
    problem(await client.get("/v1/jobs", params={"state": "nowhere"}), 422, "invalid_request")


async def test_a_job_names_who_made_it(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    made = (await client.post("/v1/jobs", json=body)).json()
    assert made["owner"] == "test"  # the key belongs to no user: its own name
    assert [job["owner"] for job in (await client.get("/v1/jobs")).json()["data"]] == ["test"]
    assert len(await names(client, q="test")) == 1


async def test_the_small_curve_follows_what_the_attempt_reports(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    async with database.transaction() as session:
        job = await add_job(session)
        attempt = await start_attempt(session, job)
    reports = [
        {"kind": "metrics", "step": step, "split": split, "values": {"loss": loss}}
        for step, split, loss in [(1, "train", 0.7), (1, "held_out", 0.9), (2, "train", None), (3, "train", 0.5)]
    ]
    token = attempt_token(settings, attempt.id)
    answer = await client.post(
        f"/internal/attempts/{attempt.id}/reports",
        json={"first_seq": 1, "reports": reports},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200, answer.text
    assert (await client.get(f"/v1/jobs/{job.id}")).json()["loss_points"] == [[1, 0.7], [3, 0.5]]


async def test_queued_jobs_are_listed_in_the_order_in_which_they_are_let_go(
    client: httpx.AsyncClient, database: Database
) -> None:
    await add(database, "on the cluster", state=JobState.RUNNING)
    first, urgent = await add(database, "first"), await add(database, "urgent", priority=5, spec={"priority": 5})
    for index in range(60):
        await add(database, f"later {index}")
    await add(database, "theirs", project_id="bob")
    answer = (await client.get("/v1/queue/jobs")).json()
    assert [job["id"] for job in answer["data"]][:2] == [urgent, first]
    assert all(job["waiting"]["message"] for job in answer["data"])
    assert len(answer["data"]) + answer["more"] == 62
    assert "theirs" not in str(answer)


async def test_the_pools_say_who_holds_them_and_name_no_job_of_others(
    client: httpx.AsyncClient, database: Database
) -> None:
    await see(database, POLICY, SHARED)
    resources = {"losses": [{"type": "sft"}], "resources": {"policy": {"workers": 2, "gpus_per_worker": 1}}}
    mine = await add(database, "mine", state=JobState.RUNNING, spec=resources)
    theirs = await add(database, "secret name", state=JobState.RUNNING, spec=resources, project_id="bob")
    answer = await client.get("/v1/pools")
    pools = {pool["pool"]: pool for pool in answer.json()["data"]}
    assert pools["policy"]["labels"] == ["policy", "shared"]
    assert (pools["policy"]["nodes"], pools["policy"]["gpus"], pools["policy"]["accelerators"]) == (2, 4, {"L4": 4})
    held = [(holder["job_id"], holder["name"], holder["gpus"]) for holder in pools["policy"]["holders"]]
    assert sorted(held, key=str) == sorted([(mine, "mine", 2), (None, None, 2)], key=str)
    assert theirs not in answer.text
    assert "secret name" not in answer.text
    assert pools["serving"]["nodes"] == 1
    bob = (await client.get("/v1/pools", headers=await key_of(database, "bob"))).json()
    assert mine not in str(bob)


async def test_an_operator_lists_the_jobs_of_any_project_and_nobody_else_does(
    client: httpx.AsyncClient, database: Database
) -> None:
    for project in ("ada", "bob", "eve"):
        await add(database, f"of {project}", project_id=project)
    assert await names(client, project="ada") == ["of ada"]
    for other in ("bob", "*", "nowhere"):
        problem(await client.get("/v1/jobs", params={"project": other}), 404, "not_found")

    async with database.transaction() as session:
        _, key = await create_key(session, project_id="ada", name="operator", role=Role.OPERATOR)
    client.headers["Authorization"] = f"Bearer {key}"
    assert await names(client) == ["of ada"]
    assert await names(client, project="bob") == ["of bob"]
    assert await names(client, project="nowhere") == []
    first = (await client.get("/v1/jobs", params={"project": "*", "limit": 2})).json()
    assert [(job["name"], job["project_id"]) for job in first["data"]] == [("of eve", "eve"), ("of bob", "bob")]
    assert await names(client, project="*", cursor=first["next_cursor"]) == ["of ada"]
    assert await names(client, project="*", q="bob") == ["of bob"]
