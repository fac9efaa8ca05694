"""What a stream of one evaluation follows. It polls: an evaluation has few watchers, and changes with every answer."""

import asyncio
from collections.abc import Callable, Mapping

from api.sse import News, frame
from service.db.evaluation_tables import Evaluation
from service.db.session import Database
from service.errors import NotFound
from service.evaluations.repository import EvaluationRepository

_POLL_EVERY_S = 1.0


class EvaluationSource:
    """shown: the evaluation's JSON, on one line."""

    def __init__(
        self, database: Database, evaluation_id: str, shown: Callable[[Evaluation, Mapping[str, int]], str]
    ) -> None:
        self._database = database
        self._id = evaluation_id
        self._shown = shown
        self._sent = ""

    async def news(self) -> News:
        # Shielded: a reader that goes away in the middle of a query must not tear down a connection of the pool.
        found = await asyncio.shield(asyncio.ensure_future(self._read()))
        if found is None:  # it was deleted
            return News(ended=True)
        evaluation, counts = found
        shown = self._shown(evaluation, counts)
        frames = [frame("evaluation", shown)] if shown != self._sent else []
        self._sent = shown
        return News(frames, ended=evaluation.state.terminal)

    async def wait(self, timeout_s: float) -> None:
        await asyncio.sleep(min(_POLL_EVERY_S, max(timeout_s, 0.0)))

    async def _read(self) -> tuple[Evaluation, Mapping[str, int]] | None:
        async with self._database.reading() as session:
            repository = EvaluationRepository(session)
            try:
                evaluation = await repository.get(self._id)
            except NotFound:
                return None
            return evaluation, await repository.counts(self._id)
