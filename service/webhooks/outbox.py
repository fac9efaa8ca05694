"""The outbox: a delivery is written in the transaction that appends its event; neither is there without the other."""

from collections.abc import Sequence

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import Event
from service.db.webhook_tables import Webhook, WebhookDelivery
from service.ids import new_id
from service.webhooks.event_types import told_as
from service.webhooks.states import DeliveryState

_columns = Webhook.__table__.c
_LISTENING = (
    select(_columns.id, _columns.event_types)
    .where(_columns.project_id == bindparam("project_id"), _columns.disabled_at.is_(None))
    .order_by(_columns.id)
)


async def enqueue(session: AsyncSession, project_id: str, events: Sequence[Event]) -> None:
    """Make the deliveries of these events, for every webhook of the project that asks for them and is not disabled."""
    webhooks = (await session.execute(_LISTENING, {"project_id": project_id})).all()
    deliveries = [
        WebhookDelivery(
            id=new_id("msg"),
            webhook_id=webhook.id,
            job_id=event.job_id,
            event_number=event.number,
            type=type,
            state=DeliveryState.PENDING,
            attempts=0,
            failures=0,
            created_at=event.created_at,
            next_attempt_at=event.created_at,
        )
        for webhook in webhooks
        for event in events
        for type in told_as(webhook.event_types, event.type)
    ]
    if deliveries:
        session.add_all(deliveries)
        await session.flush()
