"""Keys, members, projects and quotas, as those see them who may."""

import re

import httpx
import pytest
from playwright.async_api import Page, expect

from service.keys.roles import Role
from service.keys.service import create_key
from tests.dashboard.backend import Backend

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def sign_in(page: Page, backend: Backend, project: str, role: Role) -> None:
    async with backend.database.transaction() as session:
        _, key = await create_key(session, project_id=project, name=f"the {role}'s", role=role)
    await page.goto(f"{backend.url}/#key={key}")
    await expect(page.get_by_role("button", name="Sign out")).to_be_attached()


@pytest.mark.expects_errors("422")
async def test_an_admin_makes_a_key_sees_it_once_and_revokes_it(page: Page, backend: Backend) -> None:
    await sign_in(page, backend, "keys", Role.ADMIN)
    await page.goto(f"{backend.url}/settings?tab=keys")
    await page.get_by_role("button", name="New key").click()
    await page.get_by_label("What it is for").fill("<b>CI</b>")
    await page.get_by_label("User, a member").fill("nobody-yet")
    await page.get_by_role("button", name="Make the key").click()
    await expect(page.get_by_role("alert")).to_contain_text("There is no user 'nobody-yet'")
    await page.get_by_label("User, a member").fill("")
    await page.get_by_role("button", name="Make the key").click()
    key = await page.get_by_label("Key", exact=True).input_value()
    assert key.startswith("pk-")
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=backend.url, headers=headers) as client:
        assert (await client.get("/v1/session")).json()["name"] == "<b>CI</b>"
        await page.get_by_role("button", name="Close").click()
        row = page.get_by_role("row").filter(has_text="<b>CI</b>")
        await expect(row).to_contain_text(key[:9])
        assert key not in await page.content()

        await row.get_by_role("button", name="Revoke").click()
        await page.get_by_role("dialog").get_by_role("button", name="Revoke it").click()
        await expect(page.get_by_text("1 revoked")).to_be_visible()
        assert (await client.get("/v1/session")).status_code == 401


async def test_of_more_keys_than_a_page_holds_the_last_can_be_revoked(page: Page, backend: Backend) -> None:
    await sign_in(page, backend, "many-keys", Role.ADMIN)
    async with backend.database.transaction() as session:
        for index in range(102):
            await create_key(session, project_id="many-keys", name=f"key {index}")
    await page.goto(f"{backend.url}/settings?tab=keys")
    revoking = page.get_by_role("button", name=re.compile("^Revoke key "))
    await expect(revoking.first).to_be_visible()
    assert await revoking.count() < 102
    await page.get_by_role("button", name="Show more").click()
    await expect(revoking).to_have_count(102)
    await expect(page.get_by_role("button", name="Show more")).to_have_count(0)


async def test_an_admin_adds_a_member_and_changes_the_role(page: Page, backend: Backend) -> None:
    await sign_in(page, backend, "members", Role.ADMIN)
    await page.goto(f"{backend.url}/settings?tab=members")
    for user, role in (("grace", "admin"), ("eve", "member")):
        await page.get_by_label("User").fill(user)
        await page.locator("select[name=role]").select_option(role)
        await page.get_by_role("button", name="Add member").click()
        await expect(page.get_by_label(f"Role of {user}")).to_have_value(role)
    async with page.expect_response(lambda one: one.request.method == "POST" and "/v1/members" in one.url):
        await page.get_by_label("Role of eve").select_option("viewer")
    await page.reload()
    await expect(page.get_by_label("Role of eve")).to_have_value("viewer")
    await page.get_by_role("button", name="Remove eve").click()
    await expect(page.get_by_label("Role of eve")).to_have_count(0)


async def test_an_operator_sets_the_limits_of_another_project(page: Page, backend: Backend) -> None:
    await sign_in(page, backend, "operators", Role.OPERATOR)
    await page.goto(f"{backend.url}/settings?tab=projects")
    await page.get_by_label("ID of a new project").fill("limited")
    await page.get_by_role("button", name="Make the project").click()
    await page.get_by_role("link", name="limited").click()
    await page.get_by_role("button", name="Set limits").click()
    await page.get_by_label("GPUs held").fill("2.5")
    await page.get_by_role("button", name="Set the limits").click()
    await expect(page.get_by_text("of 2.50")).to_be_visible()


async def test_who_may_not_administer_is_not_offered_it(page: Page, backend: Backend) -> None:
    await sign_in(page, backend, "ada", Role.VIEWER)
    await page.goto(f"{backend.url}/settings?tab=keys")
    await expect(page.get_by_role("navigation", name="Settings").get_by_role("link")).to_have_text(["Project"])
    job_id = await backend.queued("only to look at")
    await page.goto(f"{backend.url}/jobs/{job_id}")
    await expect(page.get_by_role("heading", name="only to look at")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel job")).to_have_count(0)
