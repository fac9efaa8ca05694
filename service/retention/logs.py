"""Events and metrics of finished jobs. The numbers stay given out, and the job's row keeps how far they are gone."""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from service.db.guarded import guarded_update
from service.db.session import Database
from service.db.tables import Event, Job, Metric
from service.jobs.states import TERMINAL
from service.retention.policy import EVERY_PROJECT, Scope

MAX_JOBS = 100  # of one sweep
_CHUNK = 2000  # rows of one transaction

_REMOVED_TO: dict[type[Event] | type[Metric], InstrumentedAttribute[int]] = {
    Event: Job.events_removed_to,
    Metric: Job.metrics_removed_to,
}


async def sweep(
    database: Database, log: type[Event] | type[Metric], before: datetime, scope: Scope = EVERY_PROJECT
) -> int:
    """Remove rows that are older than `before`, of jobs that finished before it; returns how many."""
    async with database.reading() as session:
        job_ids = await _with_old_rows(session, log, before, scope)
    removed = 0
    for job_id in job_ids:
        while some := await _remove_some(database, log, job_id, before):
            removed += some
    return removed


async def _with_old_rows(
    session: AsyncSession, log: type[Event] | type[Metric], before: datetime, scope: Scope
) -> list[str]:
    """Jobs whose next row to go is there and old enough."""
    found = (
        select(Job.id)
        .join(log, (log.job_id == Job.id) & (log.number == _REMOVED_TO[log] + 1))
        .where(Job.state.in_(TERMINAL), Job.finished_at < before, log.created_at < before, scope.holds(Job.project_id))
    )
    return list((await session.scalars(found.order_by(Job.finished_at).limit(MAX_JOBS))).all())


async def _remove_some(database: Database, log: type[Event] | type[Metric], job_id: str, before: datetime) -> int:
    removed_to = _REMOVED_TO[log]
    async with database.transaction() as session:
        job = await session.get(Job, job_id, with_for_update=True, populate_existing=True)
        if job is None or not job.state.terminal or job.finished_at is None or job.finished_at >= before:
            return 0  # deleted, or it goes on
        upto = getattr(job, removed_to.key) + _CHUNK
        old = (log.job_id == job_id) & (log.number <= upto) & (log.created_at < before)
        last = (await session.scalars(select(func.max(log.number)).where(old))).one()
        if last is None:
            return 0
        gone = delete(log).where(log.job_id == job_id, log.number <= last).returning(log.number)
        numbers = (await session.scalars(gone, execution_options={"synchronize_session": False})).all()
        await guarded_update(session, job, {removed_to.key: last})
        return len(numbers)
