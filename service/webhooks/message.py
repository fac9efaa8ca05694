"""What a delivery says. Made of rows that never change, so a repeated delivery has the same body."""

import json
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import Event, Job
from service.db.webhook_tables import WebhookDelivery
from service.errors import InvalidState
from service.webhooks.event_types import OPENAI, TEST

MAX_DATA_BYTES = 20_000  # what Standard Webhooks advises for a whole message


async def body_of(session: AsyncSession, delivery: WebhookDelivery) -> bytes:
    """JSON. Raises InvalidState if the event it tells of has been removed."""
    if delivery.type == TEST:
        return _json(_envelope(delivery.type, delivery.created_at.isoformat(), {"webhook_id": delivery.webhook_id}))
    job = await session.get(Job, delivery.job_id)
    event = await session.get(Event, (delivery.job_id, delivery.event_number))
    if job is None or event is None:
        raise InvalidState("The event has been removed, by retention or with its job: there is nothing to send.")
    if delivery.type in OPENAI:
        return _json(
            {
                "id": delivery.id,
                "object": "event",
                "created_at": int(event.created_at.timestamp()),
                "type": delivery.type,
                "data": {"id": job.id},
            }
        )
    return _json(_envelope(event.type, event.created_at.isoformat(), _told(job, event)))


def _told(job: Job, event: Event) -> dict[str, Any]:
    told: dict[str, Any] = {
        "job_id": job.id,
        "job_name": job.spec["name"],
        "number": event.number,
        "stage": event.stage,
        "attempt": event.attempt,
        "message": event.message,
        "data": event.data,
    }
    if len(_json(told)) > MAX_DATA_BYTES:  # GET /v1/jobs/{job_id}/events?after={number - 1} has all of it
        told |= {"data": {}, "message": event.message[:1000], "shortened": True}
    return told


def _envelope(type: str, timestamp: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": type, "timestamp": timestamp, "data": data}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
