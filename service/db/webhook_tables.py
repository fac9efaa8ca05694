"""The tables of webhooks and of what is delivered to them."""

from datetime import datetime

from sqlalchemy import JSON, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables import Base
from service.webhooks.states import DeliveryState


class Webhook(Base):
    """An address that is told of a project's events."""

    __tablename__ = "webhooks"
    __table_args__ = (UniqueConstraint("project_id", "url"),)  # a POST that is sent again makes no second one

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(200))
    url: Mapped[str] = mapped_column(String(2000))
    event_types: Mapped[list[str]] = mapped_column(JSON)
    secret_version: Mapped[int]  # the secrets themselves are kept nowhere (service.webhooks.signing)
    oldest_version: Mapped[int]  # still signs beside the newest one, until...
    oldest_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    failing_since: Mapped[datetime | None]  # nothing has got through since
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)


class WebhookDelivery(Base):
    """An event for a webhook. Its ID is the `webhook-id` of every request that is made for it.

    Without foreign keys: an event must not fail because a webhook is deleted beside it. What is left without a webhook
    is never sent, and swept.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "job_id", "event_number", "type"),
        Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
        Index("ix_webhook_deliveries_due", "webhook_id", "state", "next_attempt_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(String(40))
    job_id: Mapped[str | None] = mapped_column(String(40))  # with the number, the event; neither for a test
    event_number: Mapped[int | None]
    type: Mapped[str] = mapped_column(String(100))
    state: Mapped[DeliveryState]
    attempts: Mapped[int]  # begun so far; also the fence between two controllers
    failures: Mapped[int]  # since the event, or since it was asked for again
    # While it is being sent: when another controller may take it that the first has died
    next_attempt_at: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    response_excerpt: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
