"""Webhooks: addresses that are told of a project's events, and the log of what was sent to them."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.deps import DatabaseDep, PageCursor, PageLimit, ProjectDep, SettingsDep
from api.problems import problems
from service.clock import utc_now
from service.db.webhook_tables import Webhook
from service.errors import InvalidRequest, InvalidState, NotFound
from service.settings import Settings
from service.webhooks import service as webhooks
from service.webhooks.repository import DeliveryRepository, WebhookRepository
from service.webhooks.request import SecretRotation, WebhookCreate, WebhookUpdate
from service.webhooks.signing import oldest_valid, signing_secret
from service.webhooks.states import DeliveryState

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


class WebhookView(BaseModel):
    id: str = Field(examples=["webhook-019316f0a6b2f3c1d4e5a"])
    object: Literal["webhook"] = "webhook"
    name: str
    url: str
    event_types: list[str]
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None = Field(description="Why nothing is sent, and no new event kept to be sent.")
    failing_since: datetime | None = Field(description="The first failure since something got through.")
    old_secrets_until: datetime | None = Field(description="Until then secrets before the newest sign as well.")
    created_at: datetime

    @classmethod
    def of(cls, webhook: Webhook) -> "WebhookView":
        return cls(**_members(webhook))


class WebhookWithSecret(WebhookView):
    signing_secret: str = Field(description="What the receiver checks signatures with. It is not shown again.")

    @classmethod
    def made(cls, webhook: Webhook, settings: Settings) -> "WebhookWithSecret":
        return cls(**_members(webhook), signing_secret=signing_secret(settings, webhook))


class WebhookList(BaseModel):
    data: list[WebhookView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


class DeliveryView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="The `webhook-id` of every request made for it.")
    type: str
    job_id: str | None
    event_number: int | None
    state: DeliveryState
    attempts: int = Field(description="Begun so far.")
    next_attempt_at: datetime | None = Field(
        description="While it is being sent, when it would be sent again if no outcome is heard of."
    )
    last_attempt_at: datetime | None
    response_status: int | None = Field(description="HTTP status of the last answer.")
    response_excerpt: str | None = Field(description="The beginning of the last answer, at most 500 characters.")
    error: str | None = Field(description="Why the last attempt failed.")
    created_at: datetime
    finished_at: datetime | None


class DeliveryPage(BaseModel):
    data: list[DeliveryView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


@router.post("", status_code=201, responses=problems(InvalidRequest, InvalidState))
async def create_webhook(
    request: WebhookCreate, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> WebhookWithSecret:
    """Have an address told of events. The answer has the secret that its messages are signed with."""
    return WebhookWithSecret.made(await webhooks.create(database, settings, project_id, request), settings)


@router.get("", responses=problems(InvalidRequest))
async def list_webhooks(
    project_id: ProjectDep, database: DatabaseDep, limit: PageLimit = 100, cursor: PageCursor = None
) -> WebhookList:
    """Your webhooks, oldest first."""
    async with database.reading() as session:
        found, next_cursor = await WebhookRepository(session).page(project_id, limit=limit, cursor=cursor)
    return WebhookList(data=[WebhookView.of(webhook) for webhook in found], next_cursor=next_cursor)


@router.get("/{webhook_id}", responses=problems(NotFound))
async def get_webhook(webhook_id: str, project_id: ProjectDep, database: DatabaseDep) -> WebhookView:
    async with database.reading() as session:
        return WebhookView.of(await WebhookRepository(session).get_in_project(webhook_id, project_id))


@router.patch("/{webhook_id}", responses=problems(NotFound, InvalidRequest, InvalidState))
async def update_webhook(
    webhook_id: str, request: WebhookUpdate, project_id: ProjectDep, database: DatabaseDep, settings: SettingsDep
) -> WebhookView:
    """Change what is given; `enabled: false` stops it, and `true` starts it again."""
    return WebhookView.of(await webhooks.update(database, settings, project_id, webhook_id, request))


@router.delete("/{webhook_id}", status_code=204, responses=problems(NotFound))
async def delete_webhook(webhook_id: str, project_id: ProjectDep, database: DatabaseDep) -> None:
    """Delete it and its log. What waits to be sent is not sent."""
    async with database.transaction() as session:
        await webhooks.delete(session, project_id, webhook_id)


@router.post("/{webhook_id}/rotate-secret", responses=problems(NotFound, InvalidRequest, InvalidState))
async def rotate_secret(
    webhook_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    request: SecretRotation | None = None,
) -> WebhookWithSecret:
    """Make a new secret. Messages are signed with the old one too until `overlap_s` is over."""
    async with database.transaction() as session:
        webhook = await webhooks.rotate_secret(session, project_id, webhook_id, request or SecretRotation())
    return WebhookWithSecret.made(webhook, settings)


@router.post("/{webhook_id}/test", status_code=202, responses=problems(NotFound, InvalidState))
async def send_test_event(webhook_id: str, project_id: ProjectDep, database: DatabaseDep) -> DeliveryView:
    """Send the event `webhook.test`. Its delivery says what came of it."""
    async with database.transaction() as session:
        return DeliveryView.model_validate(await webhooks.send_test(session, project_id, webhook_id))


@router.get("/{webhook_id}/deliveries", responses=problems(NotFound, InvalidRequest))
async def list_deliveries(
    webhook_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    state: DeliveryState | None = None,
) -> DeliveryPage:
    """What was sent, and what is still to be sent, newest first."""
    async with database.reading() as session:
        webhook = await WebhookRepository(session).get_in_project(webhook_id, project_id)
        page, next_cursor = await DeliveryRepository(session, webhook).page(limit=limit, cursor=cursor, state=state)
    return DeliveryPage(data=[DeliveryView.model_validate(one) for one in page], next_cursor=next_cursor)


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=problems(NotFound))
async def get_delivery(
    webhook_id: str, delivery_id: str, project_id: ProjectDep, database: DatabaseDep
) -> DeliveryView:
    async with database.reading() as session:
        webhook = await WebhookRepository(session).get_in_project(webhook_id, project_id)
        return DeliveryView.model_validate(await DeliveryRepository(session, webhook).get(delivery_id))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202, responses=problems(NotFound, InvalidState)
)
async def redeliver(webhook_id: str, delivery_id: str, project_id: ProjectDep, database: DatabaseDep) -> DeliveryView:
    """Send it again, with the same `webhook-id`; one that waits for its next attempt is sent now."""
    async with database.transaction() as session:
        return DeliveryView.model_validate(await webhooks.redeliver(session, project_id, webhook_id, delivery_id))


def _members(webhook: Webhook) -> dict[str, object]:
    now = utc_now()
    overlapping = oldest_valid(webhook, now) < webhook.secret_version
    return {
        "id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "event_types": webhook.event_types,
        "status": "enabled" if webhook.disabled_at is None else "disabled",
        "disabled_reason": webhook.disabled_reason,
        "failing_since": webhook.failing_since,
        "old_secrets_until": webhook.oldest_until if overlapping else None,
        "created_at": webhook.created_at,
    }
