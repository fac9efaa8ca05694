"""The delivery log of webhooks."""

from datetime import datetime

from sqlalchemy import delete, or_, select

from service.db.session import Database
from service.db.webhook_tables import Webhook, WebhookDelivery

_CHUNK = 2000


async def sweep(database: Database, before: datetime) -> int:
    """Remove deliveries made before `before`, however they ended, and those whose webhook is gone; returns how many.

    What still waits after so long waits for a webhook that is disabled.
    """
    orphaned = WebhookDelivery.webhook_id.not_in(select(Webhook.id))
    old = select(WebhookDelivery.id).where(or_(WebhookDelivery.created_at < before, orphaned)).limit(_CHUNK)
    removed = 0
    while True:
        async with database.transaction() as session:
            gone = delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).returning(WebhookDelivery.id)
            ids = (await session.scalars(gone, execution_options={"synchronize_session": False})).all()
        removed += len(ids)
        if len(ids) < _CHUNK:
            return removed
