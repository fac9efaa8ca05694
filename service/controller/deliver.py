"""Sends what webhooks are to be told. Tuned by `settings.webhook_*`.

Each webhook is served by a task of its own, one delivery after the other, so a slow receiver keeps only itself waiting.
"""

import asyncio
import logging
from types import TracebackType
from typing import Self

import httpx

from service.clock import utc_now
from service.controller.context import Controller
from service.db.webhook_tables import Webhook
from service.webhooks import send
from service.webhooks.delivery import claim_next, record
from service.webhooks.repository import WebhookRepository
from service.webhooks.signing import signed_headers

log = logging.getLogger(__name__)

_MAX_AT_ONCE = 32  # webhooks
_MAX_IN_A_ROW = 100  # deliveries, before the webhook's own row is read again


class Deliver:
    """The reconciler and what it is sending. What is under way at its end is sent again when its lease is over."""

    def __init__(self) -> None:
        self._client = send.client()
        self._sending: dict[str, asyncio.Task[None]] = {}  # by webhook

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._sending.values():
            task.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)
        await self._client.aclose()

    async def reconcile(self, controller: Controller) -> None:
        """Begin to send what is due. Raises what went wrong with the database in what was begun before."""
        done = [webhook_id for webhook_id, task in self._sending.items() if task.done()]
        ended = [self._sending.pop(webhook_id) for webhook_id in done]
        async with controller.database.reading() as session:
            due = await WebhookRepository(session).with_due_deliveries(utc_now())
        for webhook in due:
            if webhook.id not in self._sending and len(self._sending) < _MAX_AT_ONCE:
                self._sending[webhook.id] = asyncio.create_task(_send_due(controller, self._client, webhook))
        for task in ended:
            task.result()


async def _send_due(controller: Controller, client: httpx.AsyncClient, webhook: Webhook) -> None:
    """Until nothing is due, or something fails: then what else is due waits for the next pass."""
    settings = controller.settings
    for _ in range(_MAX_IN_A_ROW):
        claim = await claim_next(controller.database, settings, webhook)
        if claim is None:
            return
        headers = signed_headers(settings, webhook, claim.delivery.id, claim.body, utc_now()) | {
            "Content-Type": "application/json",
            "User-Agent": "Plumbline-Webhooks",
        }
        outcome = await send.post(
            client, webhook.url, headers, claim.body, settings.allow_private_urls, settings.webhook_timeout_s
        )
        async with controller.database.transaction() as session:
            await record(session, settings, webhook, claim.delivery, outcome)
        if outcome.error is not None:
            log.warning("webhook %s: %s: %s", webhook.id, claim.delivery.id, outcome.error)
            return
