"""Tells an experiment tracker what jobs report, while they run. A tracker that fails holds up no job.

How far a job has been told is stored after the tracker took it, so a crash in between repeats a portion and loses none;
trackers know by the metrics' numbers, or by their steps and times, what they have. What fails is tried again a minute
later (`_AGAIN_AFTER_S`), and a pass ends at the third failure, since a tracker that is away takes long to say so.
Jobs from before `_SINCE` are left alone: a tracker that is switched on does not get the whole past. A pass goes on
where the one before has ended, so that with more running jobs than `_JOBS` each has its turn.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import and_, or_, select

from service.clock import utc_now
from service.controller.context import Controller
from service.db.guarded import guarded_update
from service.db.tables import Job, TrackerRun
from service.jobs.log import LogRepository
from service.jobs.states import TERMINAL
from service.trackers.base import Tracker, TrackerError

_SINCE = timedelta(days=7)
_JOBS = 50  # of one pass
_PORTION = 500  # metrics of a job in one pass
_AGAIN_AFTER_S = 60.0
_MAX_FAILURES = 3  # of one pass

log = logging.getLogger(__name__)


@dataclass
class Track:
    """The reconciler. again_at: when jobs whose telling failed are told again, by a monotonic clock. last: the job
    that the pass before ended with."""

    tracker: Tracker
    again_at: dict[str, float] = field(default_factory=dict)
    last: str = ""

    async def reconcile(self, controller: Controller) -> None:
        behind = await self._behind(controller)
        failures: list[TrackerError] = []
        for job, run in behind:
            self.last = job.id
            if self.again_at.get(job.id, 0.0) > time.monotonic():
                continue
            try:
                await self._tell(controller, job, run)
            except TrackerError as error:  # of one job, perhaps: the others are told all the same
                failures.append(error)
                self.again_at[job.id] = time.monotonic() + _AGAIN_AFTER_S
                if len(failures) == _MAX_FAILURES:
                    break
            else:
                self.again_at.pop(job.id, None)
        if failures:
            raise failures[0]

    async def leave(self) -> None:
        """Let the tracker send what it still holds."""
        try:
            await asyncio.to_thread(self.tracker.leave)
        except TrackerError as error:
            log.warning("%s", error)

    async def _behind(self, controller: Controller) -> list[tuple[Job, TrackerRun | None]]:
        """Jobs with values that the tracker has not been told, or whose end it has not, in turns."""
        oldest_id = f"job-{int((utc_now() - _SINCE).timestamp() * 1000):011x}"  # IDs sort by time: service.ids
        of_job = and_(TrackerRun.job_id == Job.id, TrackerRun.tracker == self.tracker.name)
        untold = or_(
            TrackerRun.job_id.is_(None),
            and_(TrackerRun.closed.is_(False), or_(Job.last_metric > TrackerRun.last_metric, Job.state.in_(TERMINAL))),
        )
        query = select(Job, TrackerRun).join(TrackerRun, of_job, isouter=True)
        query = (
            query.where(Job.id >= oldest_id, Job.last_metric > 0, Job.deleted_at.is_(None), untold)
            .order_by(Job.id <= self.last, Job.id)
            .limit(_JOBS)
        )
        async with controller.database.reading() as session:
            return [(job, run) for job, run in await session.execute(query)]

    async def _tell(self, controller: Controller, job: Job, run: TrackerRun | None) -> None:
        if run is None:
            run_id = await asyncio.to_thread(self.tracker.open, job)
            run = TrackerRun(job_id=job.id, tracker=self.tracker.name, run_id=run_id, last_metric=0, closed=False)
            async with controller.database.transaction() as session:
                session.add(run)
        last = await asyncio.to_thread(self.tracker.told, job, run.run_id, run.last_metric)
        async with controller.database.reading() as session:
            metrics = await LogRepository(session).metrics_after({job.id: last}, split=None, limit=_PORTION)
        await asyncio.to_thread(self.tracker.send, run.run_id, metrics)
        last = metrics[-1].number if metrics else last
        closed = job.state.terminal and len(metrics) < _PORTION
        if closed:
            await asyncio.to_thread(self.tracker.close, run.run_id, job)
        async with controller.database.transaction() as session:
            await guarded_update(session, run, {"last_metric": last, "closed": closed})
