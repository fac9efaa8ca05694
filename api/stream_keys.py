"""Streams that go on for minutes end with the key that opened them: one query looks at the keys of all streams of this
process, whichever replica they were revoked on."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.db.session import Database
from service.db.trouble import TROUBLE
from service.keys.service import good_keys

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class StreamKeys:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: defaultdict[str, set[asyncio.Timeout]] = defaultdict(set)

    @asynccontextmanager
    async def while_good(self, key_id: str) -> AsyncIterator[asyncio.Timeout]:
        """Cut the block off, without an error, when the key is refused; what is yielded then says that it `expired`."""
        until_refused = asyncio.timeout(None)
        try:
            async with until_refused:
                self._open[key_id].add(until_refused)
                try:
                    yield until_refused
                finally:
                    self._open[key_id].discard(until_refused)
                    if not self._open[key_id]:
                        del self._open[key_id]
        except TimeoutError:
            if not until_refused.expired():
                raise

    async def keep_looking(self) -> None:
        """For as long as streams may be open. While the database does not answer they go on."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except TROUBLE as error:
                log.warning("whether the keys of open streams are still good cannot be read: %s", error)

    async def _look(self) -> None:
        key_ids = list(self._open)
        if not key_ids:
            return
        async with self._database.reading() as session:
            good = await good_keys(session, key_ids)
        now = asyncio.get_running_loop().time()
        for key_id in set(key_ids) - good:
            for until_refused in self._open.get(key_id, ()):
                until_refused.reschedule(now)
