"""Removes what has been kept for long enough. Tuned by `settings.keep_*_days`, what projects have set instead, and
`settings.retention_every_s`."""

import logging
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from service.clock import utc_now
from service.controller.context import Controller
from service.db.tables import Event, Metric
from service.retention import deliveries, logs, policy, runs, uploads
from service.retention.policy import Kept

log = logging.getLogger(__name__)


@dataclass
class Retain:
    """The reconciler and when it looked last."""

    looked_at: float | None = None

    async def reconcile(self, controller: Controller) -> None:
        settings, database = controller.settings, controller.database
        now = time.monotonic()
        if self.looked_at is not None and now - self.looked_at < settings.retention_every_s:
            return
        self.looked_at = now
        removed: Counter[str] = Counter()
        async with database.reading() as session:
            scopes = {kept: await policy.scopes(session, settings, kept) for kept in Kept}
        for scope, before in scopes[Kept.EVENTS]:
            removed["events"] += await logs.sweep(database, Event, before, scope)
        for scope, before in scopes[Kept.METRICS]:
            removed["metrics"] += await logs.sweep(database, Metric, before, scope)
        for scope, before in scopes[Kept.UPLOADS]:
            removed["uploads"] += await uploads.sweep(database, settings, before, scope)
        for scope, before in scopes[Kept.CHECKPOINTS]:
            removed["runs"] += await runs.sweep(database, settings, before, scope)
        if settings.keep_deliveries_days is not None:
            before = utc_now() - timedelta(days=settings.keep_deliveries_days)
            removed["deliveries"] += await deliveries.sweep(database, before)
        for kind, count in removed.items():
            if count:
                log.info("retention: removed %d %s", count, kind)
