"""Where jobs stand in the queue, as streams tell it: looked at every few seconds for all, and told anew only when it
has notably changed, since an estimate of the end moves a little at every look."""

from datetime import datetime, timedelta

from api.queue_views import EtaView, Place
from service.clock import utc_now
from service.db.tables import Job
from service.queue.view import QueueNow, QueueViews

_NOTABLE = timedelta(seconds=30)
_NOTABLE_SHARE = 0.1  # of the time that is left
_MAX_TOLD = 10_000
_UNTIL = {"holders": {"__all__": {"until_low", "until_high"}}}


class Places:
    """Of one process."""

    def __init__(self, queue: QueueViews) -> None:
        self._queue = queue
        self._seen: QueueNow | None = None
        self._told: dict[str, Place] = {}

    async def look(self) -> None:
        self._seen = await self._queue.now()

    async def look_once(self) -> None:
        """If nothing has been seen yet."""
        if self._seen is None:
            await self.look()

    def of(self, job: Job) -> Place:
        """By the last look: as it was told before, unless it has notably changed."""
        place = Place.of(job, self._seen)
        before = self._told.pop(job.id, None)
        if before is not None and not has_changed(before, place, utc_now()):
            place = before
        self._told[job.id] = place
        if len(self._told) > _MAX_TOLD:
            del self._told[next(iter(self._told))]
        return place


def has_changed(before: Place, place: Place, now: datetime) -> bool:
    """Pure. Whether a reader would want to know."""
    if (before.waiting is None) is not (place.waiting is None) or (before.eta is None) is not (place.eta is None):
        return True
    if before.waiting is not None and place.waiting is not None:
        told, found = (one.model_dump(exclude=_UNTIL) for one in (before.waiting, place.waiting))
        if told != found:
            return True
    return before.eta is not None and place.eta is not None and _has_moved(before.eta, place.eta, now)


def _has_moved(before: EtaView, eta: EtaView, now: datetime) -> bool:
    for name in EtaView.model_fields:
        told, found = getattr(before, name), getattr(eta, name)
        if (told is None) is not (found is None):
            return True
        if told is not None and abs(found - told) > max(_NOTABLE, _NOTABLE_SHARE * (found - now)):
            return True
    return False
