"""Sweeps the storage of what uploads left, every ten minutes (`_EVERY_S`)."""

import time

from service.controller.context import Controller
from service.uploads.sweep import sweep

_EVERY_S = 600.0


class Sweep:
    """The reconciler and when it swept last."""

    def __init__(self) -> None:
        self._swept_at: float | None = None

    async def reconcile(self, controller: Controller) -> None:
        now = time.monotonic()
        if self._swept_at is None or now - self._swept_at > _EVERY_S:
            await sweep(controller.database, controller.settings)
            self._swept_at = now
