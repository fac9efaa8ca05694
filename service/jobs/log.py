"""Queries on what a job has logged: its events and its metrics, in the order of their numbers."""

from collections.abc import Sequence
from typing import Literal, get_args

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from service.db.tables import Event, Metric

Split = Literal["train", "held_out"]


class LogRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def events(self, job_id: str, *, after: int, limit: int) -> Sequence[Event]:
        found = select(Event).where(Event.job_id == job_id, Event.number > after)
        return (await self._session.scalars(found.order_by(Event.number).limit(limit))).all()

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

    async def metrics(
        self, job_id: str, *, after: int, limit: int, split: Split | None = None, superseded: bool
    ) -> Sequence[Metric]:
        """superseded: also the values of a step that were replaced when a resumed attempt repeated it."""
        found = select(Metric).where(Metric.job_id == job_id, Metric.number > after)
        if split is not None:
            found = found.where(Metric.split == split)
        if not superseded:
            later = aliased(Metric)
            found = found.where(
                ~exists().where(
                    later.job_id == Metric.job_id,
                    later.split == Metric.split,
                    later.step == Metric.step,
                    later.number > Metric.number,
                )
            )
        return (await self._session.scalars(found.order_by(Metric.number).limit(limit))).all()
