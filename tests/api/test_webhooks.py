from typing import Any

import httpx
import pytest

from service.db.session import Database
from service.jobs.repository import append_event
from tests.api.conftest import problem
from tests.service.conftest import add_job

URL = "https://hooks.example.com/plumbline"


async def created(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post("/v1/webhooks", json={"url": URL, "event_types": ["job.*"]} | fields)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_the_secret_is_shown_when_it_is_made_and_never_again(client: httpx.AsyncClient) -> None:
    webhook = await created(client, name="ours")
    secret = webhook.pop("signing_secret")
    assert secret.startswith("whsec_")
    path = f"/v1/webhooks/{webhook['id']}"
    assert (await client.get(path)).json() == webhook
    assert (await client.get("/v1/webhooks")).json() == {"data": [webhook], "next_cursor": None}
    rotated = (await client.post(f"{path}/rotate-secret", json={"overlap_s": 60})).json()
    assert rotated["signing_secret"] not in (secret, None)
    assert rotated["old_secrets_until"] is not None
    assert (await client.post(f"{path}/rotate-secret")).status_code == 200  # without a body: a day of overlap


async def test_a_webhook_is_changed_only_where_a_client_says_so(client: httpx.AsyncClient) -> None:
    webhook = await created(client)
    path = f"/v1/webhooks/{webhook['id']}"
    changed = (await client.patch(path, json={"event_types": ["*"]})).json()
    assert (changed["event_types"], changed["url"], changed["status"]) == (["*"], URL, "enabled")
    changed = (await client.patch(path, json={"enabled": False})).json()
    assert (changed["status"], changed["disabled_reason"]) == ("disabled", "Disabled by a client.")
    problem(await client.post(f"{path}/test"), 409, "invalid_state")
    changed = (await client.patch(path, json={"enabled": True, "name": "new"})).json()
    assert (changed["status"], changed["disabled_reason"], changed["name"]) == ("enabled", None, "new")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["job.success"]}, "event_types.0"),
        ({"name": "a\0b"}, "name"),
        ({"secret": "mine"}, "secret"),
    ],
)
async def test_a_webhook_that_could_not_work_is_refused(
    client: httpx.AsyncClient, fields: dict[str, Any], field: str
) -> None:
    answer = problem(await client.post("/v1/webhooks", json={"url": URL} | fields), 422, "invalid_request")
    assert field in str(answer.get("field") or answer["errors"])


async def test_the_same_address_twice_is_a_conflict(client: httpx.AsyncClient) -> None:
    webhook = await created(client)
    problem(await client.post("/v1/webhooks", json={"url": URL}), 409, "invalid_state")
    other = await created(client, url=f"{URL}/2")
    problem(await client.patch(f"/v1/webhooks/{other['id']}", json={"url": webhook["url"]}), 409, "invalid_state")


async def test_the_log_has_pages_and_a_delivery_can_be_asked_for_again(
    client: httpx.AsyncClient, database: Database
) -> None:
    path = f"/v1/webhooks/{(await created(client))['id']}/deliveries"
    async with database.transaction() as session:
        job = await add_job(session)
        for type in ("job.queued", "job.starting", "job.running"):
            await append_event(session, job, type, "")
    first = (await client.get(path, params={"limit": 2})).json()
    rest = (await client.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    found = first["data"] + rest["data"]
    assert {(one["type"], one["state"], one["attempts"]) for one in found} == {
        ("job.queued", "pending", 0), ("job.starting", "pending", 0), ("job.running", "pending", 0)
    }  # fmt: skip
    assert rest["next_cursor"] is None
    assert (await client.get(path, params={"state": "failed"})).json()["data"] == []
    problem(await client.get(path, params={"cursor": "msg-1"}), 422, "invalid_request")
    one = f"{path}/{found[0]['id']}"
    assert (await client.get(one)).json() == found[0]
    assert (await client.post(f"{one}/redeliver")).status_code == 202
    problem(await client.post(f"{path}/msg-{'0' * 21}/redeliver"), 404, "not_found")


async def test_a_test_event_is_a_delivery_of_its_own(client: httpx.AsyncClient) -> None:
    path = f"/v1/webhooks/{(await created(client, event_types=['job.failed']))['id']}"
    sent = await client.post(f"{path}/test")
    assert (sent.status_code, sent.json()["type"], sent.json()["job_id"]) == (202, "webhook.test", None)
    assert (await client.get(f"{path}/deliveries")).json()["data"] == [sent.json()]


async def test_another_projects_webhook_is_not_there(client: httpx.AsyncClient, bob: dict[str, str]) -> None:
    path = f"/v1/webhooks/{(await created(client))['id']}"
    sent = (await client.post(f"{path}/test")).json()
    assert (await client.get("/v1/webhooks", headers=bob)).json()["data"] == []
    for method, rest in [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/test"),
        ("GET", "/deliveries"), ("GET", f"/deliveries/{sent['id']}"), ("POST", f"/deliveries/{sent['id']}/redeliver"),
    ]:  # fmt: skip
        body = {} if method == "PATCH" else None
        problem(await client.request(method, path + rest, headers=bob, json=body), 404, "not_found")


async def test_a_deleted_webhook_is_gone(client: httpx.AsyncClient) -> None:
    path = f"/v1/webhooks/{(await created(client))['id']}"
    assert (await client.delete(path)).status_code == 204
    problem(await client.get(path), 404, "not_found")
    problem(await client.delete(path), 404, "not_found")
    await created(client)  # the address is free again
