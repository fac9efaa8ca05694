"""Removes what has been kept for long enough. Tuned by `settings.keep_*_days` and `settings.retention_every_s`."""

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.clock import utc_now
from service.controller.context import Controller
from service.db.tables import Event, Metric
from service.retention import deliveries, logs, runs, uploads

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
        removed: dict[str, int] = {}
        if before := _before(settings.keep_events_days):
            removed["events"] = await logs.sweep(database, Event, before)
        if before := _before(settings.keep_metrics_days):
            removed["metrics"] = await logs.sweep(database, Metric, before)
        if before := _before(settings.keep_uploads_days):
            removed["uploads"] = await uploads.sweep(database, settings, before)
        if before := _before(settings.keep_checkpoints_days):
            removed["runs"] = await runs.sweep(database, settings, before)
        if before := _before(settings.keep_deliveries_days):
            removed["deliveries"] = await deliveries.sweep(database, before)
        for kind, count in removed.items():
            if count:
                log.info("retention: removed %d %s", count, kind)


def _before(days: float | None) -> datetime | None:
    return utc_now() - timedelta(days=days) if days is not None else None
