"""When keys were last used: noted in memory by each request, and written once a minute, so that no request waits."""

from datetime import datetime

from sqlalchemy import or_, update

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import ApiKey

WRITE_EVERY_S = 60.0


class KeyUses:
    """Of one replica. What a killed one had not written yet is lost, a minute at most."""

    def __init__(self) -> None:
        self._last: dict[str, datetime] = {}

    def note(self, key_id: str) -> None:
        self._last[key_id] = utc_now()

    async def write(self, database: Database) -> None:
        """What was noted since the last time; kept for the next if the database does not answer."""
        uses, self._last = self._last, {}
        if not uses:
            return
        try:
            async with database.transaction() as session:
                for key_id, at in sorted(uses.items()):  # in one order everywhere, so that replicas cannot deadlock
                    older = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at)
                    await session.execute(update(ApiKey).where(ApiKey.id == key_id, older).values(last_used_at=at))
        except BaseException:
            self._last = uses | self._last
            raise
