"""Signing in from a browser: the cookie, what it may do, and what ends it."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select, update

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import ApiKey
from service.db.tenant_tables import BrowserSession
from service.keys.roles import Role
from service.keys.service import create_key, revoke_key
from service.projects import service as projects
from tests.api.conftest import problem

OURS = {"X-Plumbline-Session": "1", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def browser(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Signed in as Ada; sends no key any more."""
    answer = await client.post("/v1/session")
    assert answer.status_code == 201, answer.text
    del client.headers["Authorization"]
    return client


async def test_a_session_does_what_its_key_may_do_and_its_token_is_kept_nowhere(
    browser: httpx.AsyncClient, database: Database
) -> None:
    assert (await browser.get("/v1/jobs")).status_code == 200
    who = (await browser.get("/v1/session")).json()
    assert (who["project_id"], who["role"], who["name"]) == ("ada", "member", "test")
    async with database.reading() as session:
        [kept] = await session.scalars(select(BrowserSession))
    assert kept.digest not in browser.cookies["plumbline_session"]


async def test_no_script_and_no_other_site_gets_the_cookie(client: httpx.AsyncClient) -> None:
    cookie = (await client.post("/v1/session")).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "secure" not in cookie  # over http, where a browser would drop it
    client.base_url = httpx.URL("https://test")
    assert "; secure" in (await client.post("/v1/session")).headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"X-Plumbline-Session": "1", "Sec-Fetch-Site": "cross-site"},
        {"X-Plumbline-Session": "1", "Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_page_of_another_origin_changes_nothing(browser: httpx.AsyncClient, headers: dict[str, str]) -> None:
    problem(await browser.post("/v1/webhooks", json={}, headers=headers), 403, "cross_site")
    assert (await browser.post("/v1/webhooks", json={}, headers=OURS)).status_code == 422


async def test_another_site_reads_nothing_with_the_cookie(browser: httpx.AsyncClient) -> None:
    problem(await browser.get("/v1/jobs", headers={"Sec-Fetch-Site": "cross-site"}), 403, "cross_site")


async def test_a_session_ends_with_its_key_at_once(browser: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        [key] = await session.scalars(select(ApiKey).where(ApiKey.project_id == "ada"))
        await revoke_key(session, key.id)
    problem(await browser.get("/v1/jobs"), 401, "unauthorized")


async def test_a_session_ends_when_its_user_leaves_and_may_no_more_than_the_user(
    client: httpx.AsyncClient, database: Database
) -> None:
    async with database.transaction() as session:
        user = await projects.find_or_make_user(session, "eve")
        await projects.set_member(session, "ada", user, Role.VIEWER)
        _, key = await create_key(session, project_id="ada", name="laptop", user_id=user.id)
    client.headers["Authorization"] = f"Bearer {key}"
    started = (await client.post("/v1/session")).json()
    assert (started["name"], started["role"]) == ("eve", "viewer")
    del client.headers["Authorization"]
    problem(await client.post("/v1/sweeps", json={}, headers=OURS), 403, "forbidden")
    async with database.transaction() as session:
        await projects.remove_member(session, "ada", user.id)
    problem(await client.get("/v1/jobs"), 401, "unauthorized")


async def test_a_session_ends_when_its_time_is_over_and_is_removed_at_the_next_sign_in(
    browser: httpx.AsyncClient, database: Database, ada: dict[str, str]
) -> None:
    async with database.transaction() as session:
        await session.execute(update(BrowserSession).values(expires_at=utc_now() - timedelta(seconds=1)))
    problem(await browser.get("/v1/jobs"), 401, "unauthorized")
    await browser.post("/v1/session", headers=ada)
    async with database.reading() as session:
        assert len((await session.scalars(select(BrowserSession))).all()) == 1


async def test_signing_out_ends_the_session_and_leaves_the_key(browser: httpx.AsyncClient, ada: dict[str, str]) -> None:
    token = browser.cookies["plumbline_session"]
    assert (await browser.delete("/v1/session", headers=OURS)).status_code == 204
    assert "plumbline_session" not in browser.cookies
    problem(await browser.get("/v1/jobs", headers={"Cookie": f"plumbline_session={token}"}), 401, "unauthorized")
    assert (await browser.get("/v1/jobs", headers=ada)).status_code == 200


async def test_over_https_only_a_cookie_that_this_host_itself_has_set_counts(client: httpx.AsyncClient) -> None:
    client.base_url = httpx.URL("https://test")
    set_cookie = (await client.post("/v1/session")).headers["set-cookie"]
    name, _, rest = set_cookie.partition("=")
    assert name == "__Host-plumbline_session"  # which browsers refuse without all of:
    assert "; Path=/" in rest
    assert "; Secure" in rest
    assert "domain" not in rest.lower()
    del client.headers["Authorization"]
    token = client.cookies[name]
    assert (await client.get("/v1/jobs")).status_code == 200
    client.cookies.clear()
    problem(await client.get("/v1/jobs", headers={"Cookie": f"plumbline_session={token}"}), 401, "unauthorized")
    signed_in = {"Cookie": f"{name}={token}"}
    assert (await client.delete("/v1/session", headers=OURS | signed_in)).status_code == 204
    problem(await client.get("/v1/jobs", headers=signed_in), 401, "unauthorized")


async def test_a_session_cannot_be_prolonged_without_the_key(browser: httpx.AsyncClient) -> None:
    problem(await browser.post("/v1/session", headers=OURS), 422, "invalid_request")


async def test_a_key_counts_before_a_cookie(browser: httpx.AsyncClient, bob: dict[str, str]) -> None:
    assert (await browser.get("/v1/session", headers=bob)).json()["project_id"] == "bob"
    problem(await browser.get("/v1/session", headers={"Authorization": "Bearer pk-wrong"}), 401, "unauthorized")
