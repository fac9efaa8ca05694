"""Tells an experiment tracker what jobs report, while they run. A tracker that fails holds up no job.

How far a job has been told is stored after the tracker took it, so a crash in between repeats a portion and loses none.
Jobs from before `_SINCE` are left alone: a tracker that is switched on does not get the whole past.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, or_, select

from service.clock import utc_now
from service.controller.context import Controller
from service.db.guarded import guarded_update
from service.db.tables import Job, TrackerRun
from service.jobs.log import LogRepository
from service.jobs.states import TERMINAL
from service.trackers.mlflow import Mlflow, TrackerError

_SINCE = timedelta(days=7)
_JOBS = 50  # of one pass
_PORTION = 500  # metrics of a job in one pass


@dataclass(frozen=True)
class Track:
    tracker: Mlflow

    async def reconcile(self, controller: Controller) -> None:
        behind = await self._behind(controller)
        failure: TrackerError | None = None
        for job, run in behind:
            try:
                await self._tell(controller, job, run)
            except TrackerError as error:  # of one job, perhaps: the others are told all the same
                failure = failure or error
        if failure is not None:
            raise failure

    async def _behind(self, controller: Controller) -> list[tuple[Job, TrackerRun | None]]:
        """Jobs with values that the tracker has not been told, or whose end it has not, oldest first."""
        oldest_id = f"job-{int((utc_now() - _SINCE).timestamp() * 1000):011x}"  # IDs sort by time: service.ids
        of_job = and_(TrackerRun.job_id == Job.id, TrackerRun.tracker == self.tracker.name)
        untold = or_(
            TrackerRun.job_id.is_(None),
            and_(TrackerRun.closed.is_(False), or_(Job.last_metric > TrackerRun.last_metric, Job.state.in_(TERMINAL))),
        )
        query = select(Job, TrackerRun).join(TrackerRun, of_job, isouter=True)
        query = query.where(Job.id >= oldest_id, Job.last_metric > 0, untold).order_by(Job.id).limit(_JOBS)
        async with controller.database.reading() as session:
            return [(job, run) for job, run in await session.execute(query)]

    async def _tell(self, controller: Controller, job: Job, run: TrackerRun | None) -> None:
        if run is None:
            run_id = await asyncio.to_thread(self.tracker.open, job)
            run = TrackerRun(job_id=job.id, tracker=self.tracker.name, run_id=run_id, last_metric=0, closed=False)
            async with controller.database.transaction() as session:
                session.add(run)
        async with controller.database.reading() as session:
            metrics = await LogRepository(session).metrics_after({job.id: run.last_metric}, split=None, limit=_PORTION)
        await asyncio.to_thread(self.tracker.send, run.run_id, metrics)
        last = metrics[-1].number if metrics else run.last_metric
        closed = job.state.terminal and last == job.last_metric
        if closed:
            await asyncio.to_thread(self.tracker.close, run.run_id, job)
        async with controller.database.transaction() as session:
            await guarded_update(session, run, {"last_metric": last, "closed": closed})
