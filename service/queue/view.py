"""The queue as it stands: the plan's own answer for every job that waits, and when each will start and end."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Attempt, Job
from service.jobs.states import JobState
from service.queue.estimate import Interval, Run, remaining, run_time, startup_time
from service.queue.forecast import Eta, forecast
from service.queue.plan import Plan, Queued
from service.queue.size import JobSize
from service.queue.snapshot import Snapshot, spec_of, take
from service.queue.words import FAR_BACK, JUST_QUEUED, NEXT, Waiting, explain
from service.settings import Settings
from service.spec import AlignmentJob

HISTORY = 200  # succeeded jobs that estimates are made from: the newest
_FRESH_S = 2.0
_AT_ONCE_S = 0.2
_HISTORY_FRESH_S = 30.0

_LEAVING = (JobState.PAUSING, JobState.CANCELLING)
_LEAVES_WITHIN = Interval(0, 60)


@dataclass(frozen=True)
class QueueNow:
    """One look at the queue. durations: seconds, as `service.queue.forecast.forecast` takes them."""

    snapshot: Snapshot
    plan: Plan
    durations: Mapping[str, Interval | None]
    etas: Mapping[str, Eta]
    history: Sequence[Run]

    def waiting(self, job: Job) -> Waiting | None:
        """Why the job waits, as its project may know; None for a job that is not queued."""
        if job.state is not JobState.QUEUED:
            return None
        return self.waiting_of(job.id, job.project_id)

    def waiting_of(self, job_id: str, project_id: str) -> Waiting:
        """Of a job that is queued."""
        if job_id in self.plan.starts:
            return NEXT
        wait = self.plan.waits.get(job_id)
        if wait is not None:
            return explain(wait, self.snapshot, self.etas, project_id)
        return FAR_BACK if self.snapshot.beyond else JUST_QUEUED

    def eta(self, job: Job) -> Eta | None:
        """None for a job that has ended or is to leave, or that nothing is known of."""
        eta = self.etas.get(job.id)
        return None if job.state.terminal or job.state in _LEAVING or eta == Eta() else eta

    def with_job(self, job: Queued, spec: AlignmentJob, size: JobSize) -> "tuple[QueueNow, Interval | None]":
        """The queue if this job were in it too, and how long it would run."""
        expected = run_time(spec, size.work(spec), self.history)
        snapshot = replace(self.snapshot, queued=[*self.snapshot.queued, job])
        durations = {**self.durations, job.id: expected}
        etas = forecast(snapshot, durations, startup_time(self.history))
        return QueueNow(snapshot, snapshot.plan(), durations, etas, self.history), expected


def look(snapshot: Snapshot, history: Sequence[Run]) -> QueueNow:
    """Pure; takes up to some tenths of a second with hundreds of jobs."""
    durations: dict[str, Interval | None] = {}
    for id, job in snapshot.jobs.items():
        spec = snapshot.specs[id]
        expected = run_time(spec, JobSize.of(job.size).work(spec), history)
        if job.state in _LEAVING:
            durations[id] = _LEAVES_WITHIN
        elif job.state is JobState.QUEUED:
            durations[id] = expected
        else:
            durations[id] = remaining(expected, job.stage, job.progress, job.started_at, snapshot.now)
    etas = forecast(snapshot, durations, startup_time(history))
    return QueueNow(snapshot, snapshot.plan(), durations, etas, history)


async def read_history(session: AsyncSession) -> list[Run]:
    """Newest first: jobs that took one attempt, since a wait between two is no part of a run."""
    newest = (
        select(Job, Attempt.created_at)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Job.state == JobState.SUCCEEDED, Job.num_attempts == 1, Job.started_at.is_not(None))
        .order_by(Job.id.desc())
        .limit(HISTORY)
    )
    runs = []
    for job, leased_at in await session.execute(newest):
        try:
            spec = spec_of(job)
        except ValidationError:  # of another version: its run tells this one nothing
            continue
        assert job.started_at is not None
        assert job.finished_at is not None
        seconds = (job.finished_at - job.started_at).total_seconds()
        startup_s = (job.started_at - leased_at).total_seconds()
        work = JobSize.of(job.size).work(spec)
        runs.append(Run(spec.model.source, spec.training.method.type, work, seconds, max(0.0, startup_s)))
    return runs


class QueueViews:
    """The queue for the readers of one process. One reader at a time looks, when the last look is `_FRESH_S` old or
    older than a job that is asked about, so that a page of jobs or many clients cost one look."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._seen: QueueNow | None = None
        self._history: tuple[float, list[Run]] | None = None
        self._looking = asyncio.Lock()

    async def about(self, jobs: Sequence[Job]) -> QueueNow | None:
        """What knows of all these jobs; None if none of them waits or runs."""
        live = [job for job in jobs if not job.state.terminal]
        return await self.now(live) if live else None

    async def now(self, jobs: Sequence[Job] = ()) -> QueueNow:
        """jobs: that must have been seen, unless they were queued within `_AT_ONCE_S`."""
        async with self._looking:
            if self._seen is None or self._is_old(self._seen, jobs):
                self._seen = await self._look()
            return self._seen

    def _is_old(self, seen: QueueNow, jobs: Sequence[Job]) -> bool:
        age = (utc_now() - seen.snapshot.now).total_seconds()
        new = any(job.created_at > seen.snapshot.now for job in jobs)
        return age > (_AT_ONCE_S if new else _FRESH_S)

    async def _look(self) -> QueueNow:
        async with self._database.reading() as session:
            if self._history is None or time.monotonic() - self._history[0] > _HISTORY_FRESH_S:
                self._history = time.monotonic(), await read_history(session)
            snapshot = await take(session, self._settings, utc_now())
        return await asyncio.to_thread(look, snapshot, self._history[1])
