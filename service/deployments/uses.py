"""When deployments were last asked: noted in memory, and written every few seconds, so that no request waits for it.

A deployment that has not been used for a while is written before it is asked: whoever would put it to sleep at that
moment finds it in use.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import or_, update

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Deployment

WRITE_EVERY_S = 10.0
_STALE = timedelta(seconds=30)  # at most half of the shortest `settings.serving_idle_s`, with a write between


class DeploymentUses:
    """Of one replica. What a killed one had not written yet is lost, some seconds."""

    def __init__(self) -> None:
        self._last: dict[str, datetime] = {}
        self._open: Counter[str] = Counter()

    async def begin(self, database: Database, deployment_id: str, used_at: datetime | None) -> None:
        """Before it is asked. used_at: as it was just read."""
        now = utc_now()
        self._last[deployment_id] = now
        if used_at is None or now - used_at > _STALE:
            await self.write(database)

    @contextmanager
    def during(self, deployment_id: str) -> Iterator[None]:
        """While an answer comes, which may take longer than models stay up without one."""
        self._open[deployment_id] += 1
        try:
            yield
        finally:
            self._open[deployment_id] -= 1
            if not self._open[deployment_id]:
                del self._open[deployment_id]
            self._last[deployment_id] = utc_now()

    async def write(self, database: Database) -> None:
        """What was noted since the last time; kept for the next if the database does not answer."""
        uses, self._last = self._last | dict.fromkeys(self._open, utc_now()), {}
        if not uses:
            return
        try:
            async with database.transaction() as session:
                for id, at in sorted(uses.items()):  # in one order everywhere, so that replicas cannot deadlock
                    older = or_(Deployment.used_at.is_(None), Deployment.used_at < at)
                    await session.execute(update(Deployment).where(Deployment.id == id, older).values(used_at=at))
        except BaseException:
            self._last = uses | self._last
            raise
