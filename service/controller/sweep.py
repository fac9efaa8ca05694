"""Sweeps the storage of what uploads, deletions and exports left, and of copies of models, every ten minutes
(`_EVERY_S`)."""

import time

from service.archive import sweep as archive
from service.controller.context import Controller
from service.exports import sweep as exports
from service.jobs.deletion import finish_deletions
from service.uploads import sweep as uploads

_EVERY_S = 600.0


class Sweep:
    """The reconciler and when it swept last."""

    def __init__(self) -> None:
        self._swept_at: float | None = None

    async def reconcile(self, controller: Controller) -> None:
        now = time.monotonic()
        if self._swept_at is None or now - self._swept_at > _EVERY_S:
            self._swept_at = now
            database, settings = controller.database, controller.settings
            await finish_deletions(database, settings)
            await uploads.sweep(database, settings)
            await archive.sweep(database, settings)
            await exports.sweep(database, settings)
