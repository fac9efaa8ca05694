"""Queries on what a job has logged: its events and its metrics, in the order of their numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Row, and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from service.db.tables import Deployment, Event, Job, Metric

Split = Literal["train", "held_out"]


class LogRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def events(self, job_id: str, *, after: int, limit: int) -> Sequence[Event]:
        found = select(Event).where(Event.job_id == job_id, Event.number > after)
        return (await self._session.scalars(found.order_by(Event.number).limit(limit))).all()

    async def events_after(self, after: Mapping[str, int], *, limit: int) -> Sequence[Event]:
        """Of several jobs: each one's events after its number; `limit` of all together."""
        newer = or_(*(and_(Event.job_id == job_id, Event.number > number) for job_id, number in after.items()))
        return (
            await self._session.scalars(select(Event).where(newer).order_by(Event.job_id, Event.number).limit(limit))
        ).all()

    async def metrics_after(self, after: Mapping[str, int], *, split: Split | None, limit: int) -> Sequence[Metric]:
        """As `events_after`; also the values of a step that a later one has replaced."""
        newer = or_(*(and_(Metric.job_id == job_id, Metric.number > number) for job_id, number in after.items()))
        found = select(Metric).where(newer)
        if split is not None:
            found = found.where(Metric.split == split)
        return (await self._session.scalars(found.order_by(Metric.job_id, Metric.number).limit(limit))).all()

    async def marks(self, job_ids: Sequence[str]) -> dict[str, Row[Any]]:
        """By job, something that differs from before whenever the job, its logs or its deployment have changed."""
        marks = (
            select(Job.id, Job.state, Job.stage, Job.progress, Job.last_event, Job.last_metric, Deployment.updated_at)
            .outerjoin(Deployment, Deployment.id == Job.id)
            .where(Job.id.in_(job_ids))
        )
        return {row.id: row for row in (await self._session.execute(marks)).all()}

    async def newest_events(self, job_id: str, *, before: int | None, limit: int) -> Sequence[Event]:
        """Newest first; before: only what has a lower number."""
        found = select(Event).where(Event.job_id == job_id)
        if before is not None:
            found = found.where(Event.number < before)
        return (await self._session.scalars(found.order_by(Event.number.desc()).limit(limit))).all()

    async def newest_metric(self, job_id: str, split: Split) -> Metric | None:
        found = select(Metric).where(Metric.job_id == job_id, Metric.split == split)
        return (await self._session.scalars(found.order_by(Metric.number.desc()).limit(1))).one_or_none()

    async def newest_event(self, job_id: str, type: str) -> Event | None:
        found = select(Event).where(Event.job_id == job_id, Event.type == type)
        return (await self._session.scalars(found.order_by(Event.number.desc()).limit(1))).one_or_none()

    async def has_event(self, job_id: str, attempt: int, type: str) -> bool:
        """Whether the attempt has reported such an event."""
        found = select(Event.number).where(Event.job_id == job_id, Event.attempt == attempt, Event.type == type)
        return (await self._session.scalars(found.limit(1))).one_or_none() is not None

    async def at_steps(self, job_id: str, steps: Sequence[int]) -> Sequence[Metric]:
        """What was measured at these steps, in the order of the numbers."""
        found = select(Metric).where(Metric.job_id == job_id, Metric.split.in_(get_args(Split)), Metric.step.in_(steps))
        return (await self._session.scalars(found.order_by(Metric.number))).all()

    async def metrics(self, job_id: str, *, after: int, limit: int, split: Split | None = None) -> Sequence[Metric]:
        """Without the values of a step that were replaced when a resumed attempt repeated it."""
        found = select(Metric).where(Metric.job_id == job_id, Metric.number > after, _newest_of_its_step())
        if split is not None:
            found = found.where(Metric.split == split)
        return (await self._session.scalars(found.order_by(Metric.number).limit(limit))).all()


def _newest_of_its_step() -> ColumnElement[bool]:
    later = aliased(Metric)
    return ~exists().where(
        later.job_id == Metric.job_id,
        later.split == Metric.split,
        later.step == Metric.step,
        later.number > Metric.number,
    )
