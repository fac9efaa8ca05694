"""Evaluations over HTTP; what becomes of them is in tests/evaluations."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.clock import utc_now
from service.db.evaluation_tables import EvaluationAnswer
from service.db.session import Database
from service.evaluations.repository import EvaluationRepository
from service.evaluations.states import EvaluationState
from service.jobs.states import JobState
from service.keys.roles import Role
from service.settings import EndpointKey, Settings
from service.spec import Storage
from tests.api.conftest import FrameReader, Server, problem
from tests.api.test_tenants import admin_of
from tests.service.conftest import add_file, add_job

URL = "https://llm.example.org/v1"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        secret="a secret of this test",
        evaluation_origins=["https://llm.example.org", "https://other.example.org"],
        evaluation_keys={
            "ours": EndpointKey(origin="https://llm.example.org", key="sk-nobody-sees-this"),
            "bobs": EndpointKey(origin="https://llm.example.org", key="sk-bobs", projects=["bob"]),
        },
    )


def body(**changed: Any) -> dict[str, Any]:
    endpoint = {"url": URL, "secret": "ours"}
    return {
        "models": [{"name": name, "endpoint": endpoint | {"model": name}} for name in ("one", "two")],
        "prompts": {"type": "inline", "items": [{"prompt": "Hello"}, {"prompt": "Good day", "category": "polite"}]},
        "judges": [{"type": "human"}],
    } | changed


async def created(client: httpx.AsyncClient, **changed: Any) -> dict[str, Any]:
    answer = await client.post("/v1/evaluations", json=body(**changed))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def answered(database: Database, evaluation_id: str) -> None:
    """As the controller leaves it when people are to vote."""
    async with database.transaction() as session:
        row = await EvaluationRepository(session).get(evaluation_id, lock=True)
        row.state = EvaluationState.VOTING
        session.add_all(
            EvaluationAnswer(
                evaluation_id=evaluation_id,
                position=position,
                model=model,
                text=f"answer {model}",
                request={"chat": True},
                created_at=utc_now(),
            )
            for position in (0, 1)
            for model in (0, 1)
        )


async def test_a_key_is_named_and_never_shown(client: httpx.AsyncClient) -> None:
    made = await created(client, name="mine")
    assert (made["state"], made["num_items"], made["progress"]["answers_total"]) == ("queued", 2, 4)
    for path in ("", f"/{made['id']}", f"/{made['id']}/items", f"/{made['id']}/results", f"/{made['id']}/report"):
        answer = await client.get(f"/v1/evaluations{path}")
        assert answer.status_code == 200
        assert "sk-" not in answer.text


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"url": "https://evil.example.com/v1"}, "models.0.endpoint.url"),
        ({"url": "https://llm.example.org.evil.com/v1"}, "models.0.endpoint.url"),
        ({"url": "https://llm.example.org:8443/v1"}, "models.0.endpoint.url"),
        ({"url": "http://llm.example.org/v1"}, "models.0.endpoint.url"),
        ({"url": "https://user:pass@llm.example.org/v1"}, "url"),
        ({"url": "https://other.example.org/v1"}, "models.0.endpoint.secret"),  # the key is not for it
        ({"secret": "bobs"}, "models.0.endpoint.secret"),
        ({"secret": "none"}, "models.0.endpoint.secret"),
    ],
)
async def test_a_server_or_key_that_is_not_allowed_is_refused(
    client: httpx.AsyncClient, changed: dict[str, str], field: str
) -> None:
    models = body()["models"]
    models[0] = models[0] | {"endpoint": models[0]["endpoint"] | changed}
    answer = problem(await client.post("/v1/evaluations", json=body(models=models)), 422, "invalid_request")
    assert field in str(answer.get("field") or answer["errors"])


@pytest.mark.parametrize(
    "changed",
    [
        {"judges": []},
        {"judges": [{"type": "human"}, {"type": "human"}]},
        {"judges": [{"type": "metric", "name": "m", "metric": "nobody-has-it"}]},
        {"judges": [{"type": "implicit_reward"}]},
        {"judges": [{"type": "llm", "model": "job:none"}]},
        {"judges": [{"type": "llm", "endpoint": {"url": URL, "model": "m"}, "prompt": "Which is better?"}]},
        {"models": body()["models"][:1]},
        {"models": [body()["models"][0]] * 2},
        {"prompts": {"type": "file", "file_id": "file-0"}},
        {"prompts": {"type": "held_out", "job_id": "job-0"}},
        {"prompts": {"type": "inline", "items": [{"prompt": "a\0b"}]}},
    ],
)
async def test_what_could_not_be_evaluated_is_refused(client: httpx.AsyncClient, changed: dict[str, Any]) -> None:
    answer = await client.post("/v1/evaluations", json=body(**changed))
    assert answer.status_code in (404, 422), answer.text
    assert (await client.get("/v1/evaluations")).json()["data"] == []


async def test_the_rows_of_a_file_without_a_prompt_are_named(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    file_id = await add_file(database, settings, b'{"prompt": "Hello", "category": "a"}\n{"text": 1}\n{"prompt": ""}\n')
    prompts = {"type": "file", "file_id": file_id}
    answer = problem(await client.post("/v1/evaluations", json=body(prompts=prompts)), 422, "dataset_invalid")
    assert [row["row"] for row in answer["rows"]] == [2, 3]
    made = await created(client, prompts=prompts | {"max": 1})
    items = (await client.get(f"/v1/evaluations/{made['id']}/items")).json()["data"]
    assert [(one["prompt"], one["category"]) for one in items] == [("Hello", "a")]


async def test_held_out_rows_that_are_gone_are_said_to_be(client: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
    answer = await client.post("/v1/evaluations", json=body(prompts={"type": "held_out", "job_id": job.id}))
    assert "held-out rows" in problem(answer, 422, "invalid_request")["detail"]


async def test_held_out_rows_without_a_prompt_that_could_be_asked_are_named(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
    path = Storage(settings.storage_root).held_out(job.id)
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("Hello", "", [{"role": "user"}])))
    answer = await client.post("/v1/evaluations", json=body(prompts={"type": "held_out", "job_id": job.id}))
    shown = problem(answer, 422, "dataset_invalid")
    assert shown["field"] == "prompts.job_id"
    assert [(row["row"], row["code"]) for row in shown["rows"]] == [(2, "prompt_invalid"), (3, "prompt_missing")]


async def test_a_request_that_is_sent_again_makes_one_evaluation(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "once"}
    first, again = [await client.post("/v1/evaluations", json=body(), headers=key) for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await client.post("/v1/evaluations", json=body(name="other"), headers=key)
    problem(other, 409, "idempotency_conflict")


async def test_votes_keep_the_models_from_the_voter_until_the_end(
    client: httpx.AsyncClient, database: Database
) -> None:
    path = f"/v1/evaluations/{(await created(client))['id']}"
    problem(await client.post(f"{path}/deals"), 409, "invalid_state")
    await answered(database, path.rpartition("/")[2])
    deal = (await client.post(f"{path}/deals")).json()["deal"]
    assert {deal["left"], deal["right"]} == {"answer 0", "answer 1"}
    assert not {"model", "baseline", "model_left"} & deal.keys()
    vote = {"vote_id": deal["vote_id"], "choice": "left"}
    made = (await client.post(f"{path}/votes", json=vote)).json()
    assert (made["choice"], made["left"], made["right"]) == ("left", None, None)
    others = await admin_of(database, "ada", Role.MEMBER)
    assert (await client.post(f"{path}/votes", json=vote, headers=others)).status_code == 404
    assert (await client.get(f"{path}/votes", headers=others)).json()["data"] == []
    results = (await client.get(f"{path}/results")).json()
    assert results["judges"][0]["num"] == 1
    assert (await client.delete(f"{path}/votes/{deal['vote_id']}")).json()["choice"] is None
    await client.post(f"{path}/votes", json=vote)
    assert (await client.post(f"{path}/close")).json()["state"] == "completed"
    [shown] = (await client.get(f"{path}/votes")).json()["data"]
    assert shown["left"] == ("one" if deal["left"] == "answer 0" else "two")
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_a_stream_tells_of_each_vote_and_ends_with_the_evaluation(
    server: Server, ada: dict[str, str], database: Database
) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers=ada) as client:
        path = f"/v1/evaluations/{(await created(client))['id']}"
        await answered(database, path.rpartition("/")[2])
        seen = []
        async with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
            async for frame in FrameReader(response):
                seen.append((frame.event, frame.data.get("state"), frame.data.get("progress", {}).get("votes")))
                if len(seen) == 1:
                    deal = (await client.post(f"{path}/deals")).json()["deal"]
                    await client.post(f"{path}/votes", json={"vote_id": deal["vote_id"], "choice": "tie"})
                elif len(seen) == 2:
                    await client.post(f"{path}/close")
    expected = [("evaluation", "voting", 0), ("evaluation", "voting", 1), ("evaluation", "completed", 1)]
    assert seen == [*expected, ("end", None, None)]


async def test_a_gate_is_put_by_admins_and_read_by_all(client: httpx.AsyncClient, database: Database) -> None:
    admin = await admin_of(database, "ada")
    gate = {"model_name": "helper", "rule": {"min_win_rate": 0.5, "min_votes": 30}}
    problem(await client.put("/v1/gates", json=gate), 403, "forbidden")
    made = await client.put("/v1/gates", json=gate, headers=admin)
    assert made.status_code == 200, made.text
    assert (await client.get("/v1/gates/helper")).json()["rule"]["min_votes"] == 30
    empty = await client.put("/v1/gates", json={"model_name": "*", "rule": {}}, headers=admin)
    assert "asks for nothing" in problem(empty, 422, "invalid_request")["detail"]
    assert (await client.delete("/v1/gates/helper", headers=admin)).status_code == 204
    assert (await client.get("/v1/gates")).json()["data"] == []


async def test_an_evaluation_of_another_project_is_not_listed(client: httpx.AsyncClient, bob: dict[str, str]) -> None:
    await created(client)
    assert (await client.get("/v1/evaluations", headers=bob)).json()["data"] == []
