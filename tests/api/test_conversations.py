"""What people asked several models, kept for them alone."""

import asyncio
from typing import Any

import httpx
import pytest

from service.conversations.service import MOST
from service.db.session import Database
from service.keys.roles import Role
from service.keys.service import create_key
from service.projects.service import find_or_make_user, set_member
from tests.api.conftest import problem
from tests.databases import KINDS


def content(*prompts: str, **more: Any) -> dict[str, Any]:
    turns = [{"prompt": one, "answers": [{"text": f"{one} No."}, {"text": f"{one} Yes."}]} for one in prompts]
    sampling = {"max_tokens": 16, "temperature": 0.5, "seed": 7}
    return {"models": ["base", "aligned"], "sampling": sampling, "turns": turns} | more


async def test_a_conversation_is_kept_goes_on_and_is_forgotten(client: httpx.AsyncClient) -> None:
    made = (await client.post("/v1/conversations", json=content("Who?"))).json()
    path = f"/v1/conversations/{made['id']}"
    assert (await client.put(path, json=content("Who?", "Why?"))).json()["num_turns"] == 2
    found = (await client.get(path)).json()
    assert (found["start"], found["models"]) == ("Who?", ["base", "aligned"])
    assert found["content"]["turns"][1]["answers"][1]["text"] == "Why? Yes."
    assert found["content"]["sampling"]["seed"] == 7
    (listed,) = (await client.get("/v1/conversations")).json()["data"]
    assert listed == {name: value for name, value in found.items() if name != "content"}

    assert (await client.delete(path)).status_code == 204
    problem(await client.get(path), 404, "not_found")
    problem(await client.delete(path), 404, "not_found")


async def test_the_newest_hundred_are_kept_in_pages(client: httpx.AsyncClient) -> None:
    for index in range(MOST + 2):
        assert (await client.post("/v1/conversations", json=content(f"number {index}"))).status_code == 201
    first = (await client.get("/v1/conversations", params={"limit": 60})).json()
    rest = (await client.get("/v1/conversations", params={"limit": 60, "cursor": first["next_cursor"]})).json()
    starts = [one["start"] for one in first["data"] + rest["data"]]
    assert starts == [f"number {index}" for index in range(MOST + 1, 1, -1)]
    assert rest["next_cursor"] is None
    assert (await client.delete("/v1/conversations")).status_code == 204
    assert (await client.get("/v1/conversations")).json()["data"] == []


async def test_it_is_its_users_with_any_key_and_not_a_colleagues(client: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        users = [await find_or_make_user(session, name) for name in ("ada", "eve")]
        for user in users:
            await set_member(session, "ada", user, Role.MEMBER)
        owners = [users[0].id, users[0].id, users[1].id]
        keys = [(await create_key(session, project_id="ada", name="k", user_id=one))[1] for one in owners]
    first, second, colleague = ({"Authorization": f"Bearer {key}"} for key in keys)
    made = (await client.post("/v1/conversations", json=content("Who?"), headers=first)).json()
    path = f"/v1/conversations/{made['id']}"
    assert (await client.get(path, headers=second)).status_code == 200
    problem(await client.get(path, headers=colleague), 404, "not_found")
    problem(await client.put(path, json=content("Mine?"), headers=colleague), 404, "not_found")
    assert (await client.get("/v1/conversations", headers=colleague)).json()["data"] == []


@pytest.mark.parametrize("database_url", KINDS, indirect=True)
async def test_a_post_that_is_sent_again_keeps_one_conversation(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "once"}
    posts = [client.post("/v1/conversations", json=content("Who?"), headers=key) for _ in range(4)]
    answers = await asyncio.gather(*posts)
    assert [answer.status_code for answer in answers] == [201] * 4
    (id,) = {answer.json()["id"] for answer in answers}
    assert sorted(answer.headers.get("Idempotent-Replayed", "") for answer in answers) == ["", *["true"] * 3]

    await client.put(f"/v1/conversations/{id}", json=content("Who?", "Why?"))
    again = await client.post("/v1/conversations", json=content("Who?"), headers=key)
    assert (again.json()["id"], again.json()["num_turns"]) == (id, 2)
    refused = await client.post("/v1/conversations", json=content("Who else?"), headers=key)
    problem(refused, 409, "idempotency_conflict")
    assert refused.json()["conversation_id"] == id
    assert len((await client.get("/v1/conversations")).json()["data"]) == 1


async def test_a_key_is_its_callers_own_and_free_again_when_forgotten(
    client: httpx.AsyncClient, database: Database
) -> None:
    key = {"Idempotency-Key": "once"}
    first = (await client.post("/v1/conversations", json=content("Who?"), headers=key)).json()["id"]
    async with database.transaction() as session:
        _, other = await create_key(session, project_id="ada", name="another")
    theirs = await client.post(
        "/v1/conversations", json=content("Mine."), headers=key | {"Authorization": f"Bearer {other}"}
    )
    assert theirs.status_code == 201
    await client.delete(f"/v1/conversations/{first}")
    again = await client.post("/v1/conversations", json=content("Anew?"), headers=key)
    assert (again.status_code, again.json()["id"] != first) == (201, True)


async def test_hostile_contents_are_refused_or_kept_as_text(client: httpx.AsyncClient) -> None:
    lacking = content("Who?") | {"models": ["base", "aligned", "third"]}
    assert "2 answers of 3 models" in (await client.post("/v1/conversations", json=lacking)).text
    problem(await client.post("/v1/conversations", json=lacking), 422, "invalid_request")
    problem(await client.post("/v1/conversations", json=content()), 422, "invalid_request")
    made = await client.post("/v1/conversations", json=content("<b>\U0001f600</b>"))
    assert made.json()["start"] == "<b>\U0001f600</b>"
    problem(await client.get("/v1/conversations", params={"cursor": "nonsense"}), 422, "invalid_request")
