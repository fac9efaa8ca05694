"""Queries on evaluations and on what belongs to them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.evaluation_tables import (
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    EvaluationScore,
    EvaluationVerdict,
    EvaluationVote,
)
from service.errors import InvalidRequest, NotFound
from service.evaluations.outcomes import Verdict
from service.evaluations.states import EvaluationState
from service.ids import is_id

PARTS = (EvaluationVote, EvaluationScore, EvaluationVerdict, EvaluationAnswer, EvaluationItem)


class Said(NamedTuple):
    """Of an EvaluationAnswer what is counted. characters: None if there is no answer."""

    position: int
    model: int
    characters: int | None
    finish_reason: str | None
    completion_tokens: int | None


class Score(NamedTuple):
    """Of an EvaluationScore what is counted."""

    judge: int
    model: int
    value: float | None


class EvaluationRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_in_project(self, evaluation_id: str, project_id: str, *, lock: bool = False) -> Evaluation:
        """The evaluation if it is the project's; NotFound otherwise, with no hint which of the two."""
        found = select(Evaluation).where(Evaluation.id == evaluation_id, Evaluation.project_id == project_id)
        if lock:
            found = found.with_for_update().execution_options(populate_existing=True)
        row = (await self._session.scalars(found)).one_or_none() if is_id("eval", evaluation_id) else None
        if row is None:
            raise NotFound("There is no such evaluation among yours. GET /v1/evaluations lists them.")
        return row

    async def get(self, evaluation_id: str, *, lock: bool = False) -> Evaluation:
        found = select(Evaluation).where(Evaluation.id == evaluation_id).execution_options(populate_existing=True)
        row = (await self._session.scalars(found.with_for_update() if lock else found)).one_or_none()
        if row is None:
            raise NotFound(f"{evaluation_id} has been deleted.")
        return row

    async def by_key(self, project_id: str, idempotency_key: str) -> Evaluation | None:
        found = select(Evaluation).where(
            Evaluation.project_id == project_id, Evaluation.idempotency_key == idempotency_key
        )
        return (await self._session.scalars(found)).one_or_none()

    async def page(
        self, project_id: str, *, limit: int, cursor: str | None, job_id: str | None
    ) -> tuple[Sequence[Evaluation], str | None]:
        """At most `limit`, newest first, from after `cursor`; and the cursor of the next page, None at the end."""
        found = select(Evaluation).where(Evaluation.project_id == project_id)
        if cursor is not None:
            if not is_id("eval", cursor):
                raise InvalidRequest("'cursor' is not one that this list gave out.", field="cursor")
            found = found.where(Evaluation.id < cursor)
        if job_id is not None:
            if not is_id("job", job_id):
                raise InvalidRequest("'job_id' is not the ID of a job: it begins with 'job-'.", field="job_id")
            found = found.where(Evaluation.job_id == job_id)
        rows = (await self._session.scalars(found.order_by(Evaluation.id.desc()).limit(limit + 1))).all()
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    async def in_states(self, states: Iterable[EvaluationState]) -> Sequence[Evaluation]:
        """Oldest first."""
        found = select(Evaluation).where(Evaluation.state.in_(list(states))).order_by(Evaluation.id)
        return (await self._session.scalars(found)).all()

    async def categories(self, evaluation_id: str) -> dict[int, str | None]:
        """By the prompt's position."""
        found = select(EvaluationItem.position, EvaluationItem.category)
        rows = await self._session.execute(found.where(EvaluationItem.evaluation_id == evaluation_id))
        return {row.position: row.category for row in rows}

    async def said(self, evaluation_id: str) -> Sequence[Said]:
        """All answers, without their texts."""
        columns = EvaluationAnswer.position, EvaluationAnswer.model, func.length(EvaluationAnswer.text)
        found = select(*columns, EvaluationAnswer.finish_reason, EvaluationAnswer.completion_tokens)
        found = found.where(EvaluationAnswer.evaluation_id == evaluation_id)
        return [Said(*row) for row in await self._session.execute(found)]

    async def judged(self, evaluation_id: str) -> Sequence[Verdict]:
        """All verdicts, without the replies, in the order of the items."""
        of = EvaluationVerdict
        found = select(of.judge, of.position, of.model, of.baseline, of.model_first, of.outcome)
        found = found.where(of.evaluation_id == evaluation_id).order_by(of.position)
        return [Verdict(*row) for row in await self._session.execute(found)]

    async def measured(self, evaluation_id: str) -> Sequence[Score]:
        of = EvaluationScore
        found = select(of.judge, of.model, of.value).where(of.evaluation_id == evaluation_id)
        return [Score(*row) for row in await self._session.execute(found)]

    async def items(self, evaluation_id: str) -> Sequence[EvaluationItem]:
        found = select(EvaluationItem).where(EvaluationItem.evaluation_id == evaluation_id)
        return (await self._session.scalars(found.order_by(EvaluationItem.position))).all()

    async def item_page(self, evaluation_id: str, *, after: int, limit: int) -> Sequence[EvaluationItem]:
        found = select(EvaluationItem).where(
            EvaluationItem.evaluation_id == evaluation_id, EvaluationItem.position > after
        )
        return (await self._session.scalars(found.order_by(EvaluationItem.position).limit(limit))).all()

    async def answers(self, evaluation_id: str, positions: Sequence[int] | None = None) -> Sequence[EvaluationAnswer]:
        found = select(EvaluationAnswer).where(EvaluationAnswer.evaluation_id == evaluation_id)
        if positions is not None:
            found = found.where(EvaluationAnswer.position.in_(positions))
        return (await self._session.scalars(found.order_by(EvaluationAnswer.position, EvaluationAnswer.model))).all()

    async def answered(self, evaluation_id: str) -> dict[tuple[int, int], bool]:
        """Whether there is a text, by (position, model), of what was asked."""
        found = select(EvaluationAnswer.position, EvaluationAnswer.model, EvaluationAnswer.error.is_(None)).where(
            EvaluationAnswer.evaluation_id == evaluation_id
        )
        return {(position, model): ok for position, model, ok in (await self._session.execute(found)).all()}

    async def verdicts(self, evaluation_id: str, positions: Sequence[int] | None = None) -> Sequence[EvaluationVerdict]:
        """In the order of the items."""
        found = select(EvaluationVerdict).where(EvaluationVerdict.evaluation_id == evaluation_id)
        if positions is not None:
            found = found.where(EvaluationVerdict.position.in_(positions))
        return (await self._session.scalars(found.order_by(EvaluationVerdict.position))).all()

    async def votes(
        self, evaluation_id: str, *, voter: str | None = None, taken_back: bool = False
    ) -> Sequence[EvaluationVote]:
        """Those that were cast, in that order; with a voter, also those that are only dealt to them.

        taken_back: also those that were cast and taken back.
        """
        found = select(EvaluationVote).where(EvaluationVote.evaluation_id == evaluation_id)
        if voter is not None:
            found = found.where(EvaluationVote.voter == voter)
        elif taken_back:
            found = found.where(EvaluationVote.voted_at.is_not(None) | EvaluationVote.first_voted_at.is_not(None))
        else:
            found = found.where(EvaluationVote.voted_at.is_not(None))
        return (await self._session.scalars(found.order_by(EvaluationVote.voted_at, EvaluationVote.id))).all()

    async def scores(self, evaluation_id: str, positions: Sequence[int] | None = None) -> Sequence[EvaluationScore]:
        found = select(EvaluationScore).where(EvaluationScore.evaluation_id == evaluation_id)
        if positions is not None:
            found = found.where(EvaluationScore.position.in_(positions))
        return (await self._session.scalars(found.order_by(EvaluationScore.position))).all()

    async def counts(self, evaluation_id: str) -> dict[str, int]:
        """How much there is so far: answers, verdicts, votes (decided ones), scores."""
        counts = {}
        for name, table, only in (
            ("answers", EvaluationAnswer, None),
            ("verdicts", EvaluationVerdict, None),
            ("votes", EvaluationVote, EvaluationVote.outcome.is_not(None)),
            ("scores", EvaluationScore, None),
        ):
            found = select(func.count()).select_from(table).where(table.evaluation_id == evaluation_id)
            counts[name] = (await self._session.scalars(found if only is None else found.where(only))).one()
        return counts

    async def delete(self, evaluation: Evaluation) -> None:
        for table in PARTS:
            gone = delete(table).where(table.evaluation_id == evaluation.id)
            await self._session.execute(gone, execution_options={"synchronize_session": False})
        await self._session.delete(evaluation)
