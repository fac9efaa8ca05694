"""Who sends which delivery, and what follows from its outcome.

A delivery is claimed by a guarded update that puts off its next attempt beyond the end of this one. So of two
controllers one sends it, and if that one dies the other sends it again, with the same `webhook-id`: at least once.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.session import Database
from service.db.webhook_tables import Webhook, WebhookDelivery
from service.errors import InvalidState
from service.settings import Settings
from service.webhooks.message import body_of
from service.webhooks.repository import DeliveryRepository
from service.webhooks.send import Outcome
from service.webhooks.states import DeliveryState

_LEASE_MARGIN_S = 30.0  # for writing down the outcome
_GONE = 410  # by which a receiver asks to be left alone


@dataclass(frozen=True)
class Claim:
    delivery: WebhookDelivery
    body: bytes


async def claim_next(database: Database, settings: Settings, webhook: Webhook) -> Claim | None:
    """The delivery of this webhook that is to be sent next, which is now the caller's; None if there is none, or
    another controller has just taken it."""
    async with database.transaction() as session:
        now = utc_now()
        delivery = await DeliveryRepository(session, webhook).next_due(now)
        if delivery is None:
            return None
        claimed = {
            "attempts": delivery.attempts + 1,
            "last_attempt_at": now,
            "next_attempt_at": now + timedelta(seconds=settings.webhook_timeout_s + _LEASE_MARGIN_S),
        }
        if not await guarded_update(session, delivery, claimed, *_as_read(delivery)):
            return None
        try:
            return Claim(delivery, await body_of(session, delivery))
        except InvalidState as error:
            ended = {"state": DeliveryState.FAILED, "finished_at": now, "next_attempt_at": None, "error": error.detail}
            await guarded_update(session, delivery, ended)
            return None


async def record(
    session: AsyncSession, settings: Settings, webhook: Webhook, delivery: WebhookDelivery, outcome: Outcome
) -> None:
    """Write down what came of a claimed delivery. Nothing is written if it took so long that another has claimed it."""
    now = utc_now()
    values: dict[str, Any] = {
        "response_status": outcome.status,
        "response_excerpt": outcome.excerpt,
        "error": outcome.error,
    }
    if outcome.error is None:
        values |= {"state": DeliveryState.SUCCEEDED, "finished_at": now, "next_attempt_at": None}
    else:
        failures = delivery.failures + 1
        values |= {"failures": failures, "next_attempt_at": now + wait(settings, failures)}
        if failures >= settings.webhook_max_attempts:
            values |= {"state": DeliveryState.FAILED, "finished_at": now, "next_attempt_at": None}
    if await guarded_update(session, delivery, values, *_as_read(delivery)):
        await _judge(session, settings, webhook, outcome, now)


def wait(settings: Settings, failures: int) -> timedelta:
    """Until the next attempt after so many failures: `webhook_retry_base_s`, four times as long each time, at most
    `webhook_max_wait_s`; between half and all of that by chance, so that what failed together does not return so."""
    longest = min(settings.webhook_retry_base_s * 4.0 ** min(failures - 1, 30), settings.webhook_max_wait_s)
    return timedelta(seconds=longest * random.uniform(0.5, 1))  # noqa: S311 - nothing to guess here


async def _judge(session: AsyncSession, settings: Settings, webhook: Webhook, outcome: Outcome, now: datetime) -> None:
    """Whether the webhook works, and whether it is given up."""
    enabled = Webhook.disabled_at.is_(None)
    if outcome.error is None:
        await guarded_update(session, webhook, {"failing_since": None}, enabled, Webhook.failing_since.is_not(None))
        return
    await guarded_update(session, webhook, {"failing_since": now}, enabled, Webhook.failing_since.is_(None))
    too_old = now - timedelta(seconds=settings.webhook_disable_after_s)
    if outcome.status == _GONE:
        reason = "The receiver answered 410 (Gone)."
        await guarded_update(session, webhook, {"disabled_at": now, "disabled_reason": reason}, enabled)
    else:
        reason = f"Nothing has got through for {settings.webhook_disable_after_s:g} s. Last: {outcome.error}"
        await guarded_update(
            session, webhook, {"disabled_at": now, "disabled_reason": reason}, enabled, Webhook.failing_since < too_old
        )


def _as_read(delivery: WebhookDelivery) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return WebhookDelivery.state == DeliveryState.PENDING, WebhookDelivery.attempts == delivery.attempts
