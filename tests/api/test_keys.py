"""Keys, members and projects over the API: who may give what to whom."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service.db.session import Database
from service.db.tables import ApiKey
from service.jobs.repository import append_event
from service.keys.roles import Role
from service.keys.service import create_key
from service.projects import service as projects
from tests.api.conftest import Frame, FrameReader, Server, problem
from tests.service.conftest import add_job


@pytest.fixture
async def admin(client: httpx.AsyncClient, database: Database) -> httpx.AsyncClient:
    """The client with the key of Ada, who is the project's admin."""
    async with database.transaction() as session:
        user = await projects.find_or_make_user(session, "ada@example.org")
        await projects.set_member(session, "ada", user, Role.ADMIN)
        _, key = await create_key(session, project_id="ada", name="", role=Role.ADMIN, user_id=user.id)
    client.headers["Authorization"] = f"Bearer {key}"
    return client


@pytest.fixture
async def operator(database: Database) -> dict[str, str]:
    async with database.transaction() as session:
        _, key = await create_key(session, project_id="ops", name="", role=Role.OPERATOR)
    return {"Authorization": f"Bearer {key}"}


async def member(admin: httpx.AsyncClient, user: str, role: str = "member") -> tuple[dict[str, Any], dict[str, str]]:
    """A new member and the headers of a key with the same role."""
    made = await admin.post("/v1/members", json={"user": user, "role": role})
    key = await admin.post("/v1/keys", json={"user": user, "role": role})
    assert (made.status_code, key.status_code) == (200, 201), key.text
    return made.json(), {"Authorization": f"Bearer {key.json()['key']}"}


async def test_a_key_is_shown_once_and_works_until_it_is_revoked(admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/v1/keys", json={"name": "laptop"})).json()
    bearer = {"Authorization": f"Bearer {made['key']}"}
    assert (await admin.get("/v1/jobs", headers=bearer)).status_code == 200
    listed = next(one for one in (await admin.get("/v1/keys")).json()["data"] if one["id"] == made["id"])
    assert "key" not in listed
    assert made["key"].startswith(listed["prefix"])
    assert len(listed["prefix"]) < 12
    assert (listed["user"], listed["role"], listed["name"]) == ("ada@example.org", "member", "laptop")
    assert (await admin.delete(f"/v1/keys/{made['id']}")).json()["revoked_at"]
    problem(await admin.get("/v1/jobs", headers=bearer), 401, "unauthorized")


async def _until_event(frames: AsyncIterator[Frame]) -> AsyncIterator[Frame]:
    async for frame in frames:
        yield frame
        if frame.event == "event":
            return


async def test_open_streams_end_with_their_key_whichever_replica_revoked_it(
    admin: httpx.AsyncClient, server: Server, database: Database
) -> None:
    async with database.transaction() as session:
        job = await add_job(session, project_id="ada")
    leaver, leavers_key = await member(admin, "leaver@example.org")
    made = (await admin.post("/v1/keys", json={"name": "laptop"})).json()
    stays = {"Authorization": admin.headers["Authorization"]}
    keys = [{"Authorization": f"Bearer {made['key']}"}, leavers_key, stays]
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as other, AsyncExitStack() as open_streams:
        path, stream = f"/v1/jobs/{job.id}/events", {"Accept": "text/event-stream"}
        frames = []
        for key in keys:
            response = await open_streams.enter_async_context(other.stream("GET", path, headers=stream | key))
            frames.append(aiter(FrameReader(response)))
            assert (await anext(frames[-1])).event == "job"
        await admin.delete(f"/v1/keys/{made['id']}")
        await admin.delete(f"/v1/members/{leaver['id']}")
        for of_refused in frames[:2]:
            assert [frame.event async for frame in of_refused][-1] == "reconnect"
        for key in keys[:2]:
            problem(await other.get(path, headers=stream | key), 401, "unauthorized")
        async with database.transaction() as session:
            await append_event(session, job, "data.prepared", "the others go on")
        assert "the others go on" in [frame.data.get("message") async for frame in _until_event(frames[2])]


async def test_a_key_is_refused_once_it_has_expired(admin: httpx.AsyncClient, database: Database) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    made = (await admin.post("/v1/keys", json={"expires_at": soon.astimezone().isoformat()})).json()
    bearer = {"Authorization": f"Bearer {made['key']}"}
    assert (await admin.get("/v1/jobs", headers=bearer)).status_code == 200
    async with database.transaction() as session:
        past = soon - timedelta(hours=2)
        await session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(expires_at=past))
    problem(await admin.get("/v1/jobs", headers=bearer), 401, "unauthorized")
    refused = await admin.post("/v1/keys", json={"expires_at": past.isoformat()})
    assert problem(refused, 422, "invalid_request")["field"] == "expires_at"


async def test_a_key_can_do_no_more_than_its_user_can_now(admin: httpx.AsyncClient) -> None:
    bob, key = await member(admin, "bob", "admin")
    assert (await admin.get("/v1/keys", headers=key)).status_code == 200
    await admin.post("/v1/members", json={"user": "bob", "role": "viewer"})
    problem(await admin.get("/v1/keys", headers=key), 403, "forbidden")
    assert (await admin.get("/v1/jobs", headers=key)).status_code == 200
    await admin.delete(f"/v1/members/{bob['id']}")
    problem(await admin.get("/v1/jobs", headers=key), 401, "unauthorized")


async def test_nobody_makes_a_key_above_the_user_or_the_maker(admin: httpx.AsyncClient) -> None:
    await member(admin, "bob", "viewer")
    refused = await admin.post("/v1/keys", json={"user": "bob", "role": "admin"})
    assert problem(refused, 422, "invalid_request")["field"] == "role"
    problem(await admin.post("/v1/keys", json={"role": "operator"}), 403, "forbidden")
    problem(await admin.post("/v1/keys", json={"user": "nobody"}), 422, "invalid_request")


async def test_the_last_admin_stays(admin: httpx.AsyncClient) -> None:
    (ada,) = (await admin.get("/v1/members")).json()["data"]
    problem(await admin.delete(f"/v1/members/{ada['id']}"), 409, "invalid_state")
    lower = await admin.post("/v1/members", json={"user": "ada@example.org", "role": "viewer"})
    problem(lower, 409, "invalid_state")
    await member(admin, "bob", "admin")
    assert (await admin.delete(f"/v1/members/{ada['id']}")).status_code == 200


async def test_an_operator_makes_a_project_its_admin_and_its_quota(
    admin: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    problem(await admin.post("/v1/projects", json={"id": "lab"}), 403, "forbidden")
    made = await admin.post("/v1/projects", json={"id": "lab", "quota": {"max_gpus": 8}}, headers=operator)
    assert made.status_code == 201
    problem(await admin.post("/v1/projects", json={"id": "lab"}, headers=operator), 409, "invalid_state")
    changed = await admin.patch("/v1/projects/lab", json={"quota": {"max_live_jobs": 2}}, headers=operator)
    quota = changed.json()["quota"]
    assert (quota["max_gpus"], quota["max_live_jobs"], quota["max_running_jobs"]) == (8, 2, None)
    params = {"project": "lab"}
    grace = {"user": "grace", "role": "admin"}
    assert (await admin.post("/v1/members", params=params, json=grace, headers=operator)).status_code == 200
    key = (await admin.post("/v1/keys", params=params, json=grace, headers=operator)).json()["key"]
    seen = (await admin.get("/v1/projects", headers={"Authorization": f"Bearer {key}"})).json()["data"]
    assert [one["id"] for one in seen] == ["lab"]
    problem(await admin.get("/v1/keys", params=params), 404, "not_found")
    problem(await admin.patch("/v1/projects/ada", json={"quota": {}}), 403, "forbidden")


@pytest.mark.parametrize(
    "body", [{"quota": {"max_gpus": -1}}, {"quota": {"max_gpu": 1}}, {"quota": {"max_live_jobs": 1.5}}, {"id": "A B"}]
)
async def test_what_is_no_project_is_refused(
    admin: httpx.AsyncClient, operator: dict[str, str], body: dict[str, Any]
) -> None:
    problem(await admin.post("/v1/projects", json={"id": "lab"} | body, headers=operator), 422, "invalid_request")


async def test_last_use_is_written_apart_from_the_requests(admin: httpx.AsyncClient, database: Database) -> None:
    def used(keys: httpx.Response) -> list[bool]:
        return [key["last_used_at"] is not None for key in keys.json()["data"] if key["role"] == "admin"]

    assert used(await admin.get("/v1/keys")) == [False]
    uses = admin._transport.app.state.key_uses  # type: ignore[attr-defined]
    await uses.write(database)
    assert used(await admin.get("/v1/keys")) == [True]


async def test_an_admin_has_less_kept_and_an_operator_also_more(
    admin: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    path = "/v1/projects/ada"
    changed = await admin.patch(path, json={"retention": {"checkpoints_days": 3, "events_days": 30}})
    assert (changed.status_code, changed.json()["retention"]["checkpoints_days"]) == (200, 3)
    for longer in (31, "forever"):
        told = problem(await admin.patch(path, json={"retention": {"checkpoints_days": longer}}), 403, "forbidden")
        assert "30 days" in told["detail"]
    assert (await admin.patch(path, json={"retention": {"checkpoints_days": 90}}, headers=operator)).status_code == 200
    assert (await admin.patch(path, json={"retention": {"events_days": None}})).status_code == 200
    seen = (await admin.get(path)).json()
    assert seen["retention"] == {
        "events_days": None,
        "metrics_days": None,
        "uploads_days": None,
        "checkpoints_days": 90,
    }
    assert seen["retention_in_force"] == seen["retention"] | dict.fromkeys(
        ("events_days", "metrics_days", "uploads_days"), "forever"
    )
    _, viewer = await member(admin, "grace", "viewer")
    problem(await admin.patch(path, json={"retention": {"events_days": 30}}, headers=viewer), 403, "forbidden")


@pytest.mark.parametrize(
    "body", [{}, {"retention": {"events_days": 1}}, {"retention": {"events_days": "never"}}, {"retention": {"x": 1}}]
)
async def test_what_is_no_retention_is_refused(admin: httpx.AsyncClient, body: dict[str, Any]) -> None:
    problem(await admin.patch("/v1/projects/ada", json=body), 422, "invalid_request")


async def test_lists_come_in_pages(admin: httpx.AsyncClient, operator: dict[str, str], database: Database) -> None:
    for name in ("grace", "bob", "eve"):
        await member(admin, name)
        assert (await admin.post("/v1/projects", json={"id": name}, headers=operator)).status_code == 201
        hook = {"url": f"https://{name}.example.com/", "event_types": ["*"]}
        assert (await admin.post("/v1/webhooks", json=hook)).status_code == 201
    for path, by, headers in (
        ("/v1/keys", "id", {}),
        ("/v1/members", "user", {}),
        ("/v1/webhooks", "id", {}),
        ("/v1/projects", "id", operator),
    ):
        whole = (await admin.get(path, headers=headers)).json()
        assert whole["next_cursor"] is None
        names = [one[by] for one in whole["data"]]
        assert (names, len(names) >= 3) == (sorted(names), True)
        seen, cursor = [], None
        while True:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await admin.get(path, params=params, headers=headers)).json()
            seen += [one[by] for one in page["data"]]
            if (cursor := page["next_cursor"]) is None:
                break
        assert seen == names
        told = problem(await admin.get(path, params={"cursor": "A B"}, headers=headers), 422, "invalid_request")
        assert told["field"] == "cursor"
