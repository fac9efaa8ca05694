"""Looks at the cluster's nodes, for admission and the plan, and keeps what is foretold of jobs when it is first known,
so that forecasts can be scored (`service.queue.score`)."""

import time
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from service.controller.context import Controller
from service.queue import observation, score
from service.queue.view import QueueViews

_EVERY_S = 5.0


@dataclass
class Foretell:
    """The reconciler and when it last looked."""

    _next: float = 0.0
    _views: QueueViews | None = None

    async def reconcile(self, controller: Controller) -> None:
        await observation.observe(controller.database, controller.nodes, controller.settings)
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        if self._views is None:
            self._views = QueueViews(controller.database, controller.settings)
        queue = await self._views.now()
        if not queue.etas:
            return
        try:
            async with controller.database.transaction() as session:
                await score.record(session, queue)
        except IntegrityError:  # another controller kept the same, or a job has been deleted
            return
