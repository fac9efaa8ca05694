"""Copies published models, and then exported checkpoints, into the object store of `settings.models_url`, one in a
pass. When all are there it looks every ten seconds (`_EVERY_S`). A model that cannot be read is left for ten minutes
(`_AGAIN_S`), so that the others are copied."""

import logging
import time
from dataclasses import dataclass, field

from service.archive.archive import archive, next_job
from service.archive.exported import archive_export, name_of, next_export
from service.controller.context import Controller

log = logging.getLogger(__name__)

_EVERY_S = 10.0
_AGAIN_S = 600.0


@dataclass
class Archive:
    """The reconciler, when it looked last, whose models are lost, and until when it leaves those that cannot be read,
    on the monotonic clock."""

    looked_at: float | None = None
    lost: set[str] = field(default_factory=set)
    unreadable: dict[str, float] = field(default_factory=dict)

    async def reconcile(self, controller: Controller) -> None:
        now = time.monotonic()
        if self.looked_at is not None and now - self.looked_at < _EVERY_S:
            return
        self.unreadable = {name: until for name, until in self.unreadable.items() if until > now}
        if not await self._copy_next(controller, now):
            self.looked_at = now

    async def _copy_next(self, controller: Controller, now: float) -> bool:
        """False if there was nothing to copy."""
        database, settings = controller.database, controller.settings
        without = self.lost | self.unreadable.keys()
        if (job := await next_job(database, without=without)) is not None:
            name, copied = job.id, archive(database, settings, job)
        elif (export := await next_export(database, without=without)) is not None:
            name, copied = name_of(export), archive_export(database, settings, export)
        else:
            return False
        try:
            if not await copied:
                self.lost.add(name)
        except OSError as error:
            log.warning("the model of %s cannot be copied into the object store: %s", name, error)
            self.unreadable[name] = now + _AGAIN_S
        return True
