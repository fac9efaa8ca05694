"""Queries on webhooks and deliveries."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.webhook_tables import Webhook, WebhookDelivery
from service.errors import InvalidRequest, NotFound
from service.ids import is_id
from service.paging import checked_cursor, cut
from service.webhooks.states import DeliveryState


class WebhookRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_in_project(self, webhook_id: str, project_id: str, *, lock: bool = False) -> Webhook:
        """The webhook if it is the project's; NotFound otherwise, with no hint which of the two."""
        found = select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
        if lock:
            found = found.with_for_update().execution_options(populate_existing=True)
        webhook = (await self._session.scalars(found)).one_or_none() if is_id("webhook", webhook_id) else None
        if webhook is None:
            raise NotFound("There is no such webhook among yours. GET /v1/webhooks lists them.")
        return webhook

    async def page(self, project_id: str, *, limit: int, cursor: str | None) -> tuple[Sequence[Webhook], str | None]:
        """At most `limit` of the project's, oldest first, from after `cursor`; and the next cursor, None at the end.
        Raises InvalidRequest."""
        found = select(Webhook).where(Webhook.project_id == project_id)
        if cursor is not None:
            found = found.where(Webhook.id > checked_cursor(cursor, "webhook"))
        webhooks = (await self._session.scalars(found.order_by(Webhook.id).limit(limit + 1))).all()
        return cut(webhooks, limit, lambda webhook: webhook.id)

    async def count(self, project_id: str) -> int:
        found = select(func.count()).select_from(Webhook).where(Webhook.project_id == project_id)
        return (await self._session.scalars(found)).one()

    async def with_due_deliveries(self, now: datetime) -> Sequence[Webhook]:
        """Webhooks that are to be sent something now, those first that have waited longest."""
        since = (
            select(func.min(WebhookDelivery.next_attempt_at))
            .where(WebhookDelivery.webhook_id == Webhook.id, WebhookDelivery.state == DeliveryState.PENDING)
            .scalar_subquery()
        )
        due = select(Webhook).where(Webhook.disabled_at.is_(None), since <= now).order_by(since, Webhook.id)
        return (await self._session.scalars(due)).all()


class DeliveryRepository:
    """Of one webhook, which its project has been asked for before."""

    def __init__(self, session: AsyncSession, webhook: Webhook) -> None:
        self._session = session
        self._webhook_id = webhook.id

    async def get(self, delivery_id: str, *, lock: bool = False) -> WebhookDelivery:
        """Raises NotFound."""
        found = select(WebhookDelivery).where(
            WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == self._webhook_id
        )
        if lock:
            found = found.with_for_update().execution_options(populate_existing=True)
        delivery = (await self._session.scalars(found)).one_or_none() if is_id("msg", delivery_id) else None
        if delivery is None:
            raise NotFound("The webhook has no such delivery. GET /v1/webhooks/{id}/deliveries lists them.")
        return delivery

    async def page(
        self, *, limit: int, cursor: str | None, state: DeliveryState | None
    ) -> tuple[Sequence[WebhookDelivery], str | None]:
        """At most `limit` deliveries, newest first, from after `cursor`; and the next cursor, None at the end."""
        found = select(WebhookDelivery).where(WebhookDelivery.webhook_id == self._webhook_id)
        if cursor is not None:
            if not is_id("msg", cursor):
                raise InvalidRequest(
                    "'cursor' is not one that this list gave out: use `next_cursor` of the last page as it is.",
                    field="cursor",
                )
            found = found.where(WebhookDelivery.id < cursor)
        if state is not None:
            found = found.where(WebhookDelivery.state == state)
        found = found.order_by(WebhookDelivery.id.desc()).limit(limit + 1)
        deliveries = (await self._session.scalars(found)).all()
        return deliveries[:limit], deliveries[limit - 1].id if len(deliveries) > limit else None

    async def next_due(self, now: datetime) -> WebhookDelivery | None:
        """Of those that are due the one that has waited longest; a job's events in their order."""
        due = select(WebhookDelivery).where(
            WebhookDelivery.webhook_id == self._webhook_id,
            WebhookDelivery.state == DeliveryState.PENDING,
            WebhookDelivery.next_attempt_at <= now,
        )
        in_order = (WebhookDelivery.next_attempt_at, WebhookDelivery.job_id, WebhookDelivery.event_number)
        return (await self._session.scalars(due.order_by(*in_order, WebhookDelivery.id).limit(1))).one_or_none()

    async def delete_all(self) -> None:
        gone = delete(WebhookDelivery).where(WebhookDelivery.webhook_id == self._webhook_id)
        await self._session.execute(gone, execution_options={"synchronize_session": False})
