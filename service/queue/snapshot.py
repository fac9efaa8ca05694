"""What the plan is made from, read in a few bounded queries."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache

from pydantic import ValidationError
from sqlalchemy import Select, case, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.clock import seconds_between
from service.db.tables import Attempt, Job, UtcDateTime
from service.db.tenant_tables import Project
from service.jobs.repository import ON_CLUSTER, JobRepository, waits_for_scores
from service.jobs.states import JobState
from service.projects.quota import Quota
from service.projects.usage import gpu_hours, gpus_served
from service.queue import observation
from service.queue.capacity import Capacity, Needs
from service.queue.plan import Limit, OnCluster, Plan, Queued, Rules, plan
from service.settings import Settings
from service.spec import AlignmentJob

log = logging.getLogger(__name__)

PER_PROJECT = 50  # the jobs of a project that are looked at: its next ones
IN_ALL = 500
_SPECS = 8192  # more than are looked at and run on any one cluster: with too few, each look would parse all of them


@dataclass(frozen=True)
class Snapshot:
    """The facts at `now`. jobs: the rows of `queued` and `on_cluster`, by ID. beyond: queued jobs that were not looked
    at, since so many of their project are before them. unreadable: queued jobs that another version accepted and this
    one does not take."""

    now: datetime
    queued: Sequence[Queued]
    on_cluster: Sequence[OnCluster]
    capacity: Capacity | None
    used: Mapping[str, float]
    rules: Rules
    jobs: Mapping[str, Job]
    specs: Mapping[str, AlignmentJob]
    beyond: int
    unreadable: Sequence[Job] = ()

    def plan(self) -> Plan:
        return plan(self.queued, self.on_cluster, self.capacity, self.used, self.rules, self.now)


async def take(session: AsyncSession, settings: Settings, now: datetime, *, lock: bool = False) -> Snapshot:
    """lock: for a controller that acts on it. Controllers then decide one after the other, each on what the one before
    has committed; the first of all makes the row first (`observation.observe`)."""
    view = await observation.read(session, lock=lock)
    capacity = observation.capacity_of(view, settings)
    # One statement, so that no job is missed between leaving the queue and reaching the cluster.
    live = (await session.scalars(_live_jobs(now))).all()
    specs, rows = _readable(live)
    waiting = [job for job in rows if job.state is JobState.QUEUED]
    for_scores = await JobRepository(session).waiting_for_scores([job.id for job in waiting if job.reference_group])
    total = select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED)
    return Snapshot(
        now=now,
        queued=[_queued(job, specs[job.id], now, for_scores=job.id in for_scores) for job in waiting],
        on_cluster=[
            OnCluster(job.id, job.project_id, Needs.of(specs[job.id]), job.gpus or 0.0)
            for job in rows
            if job.state in ON_CLUSTER
        ],
        capacity=capacity,
        used=await _gpu_seconds(session, now, settings.fair_share_window_s),
        rules=Rules(
            settings.max_running_jobs,
            settings.queue_patience_s,
            settings.project_shares,
            await _limits(session, {job.project_id for job in waiting}, now),
        ),
        jobs={job.id: job for job in rows},
        specs=specs,
        beyond=max(0, (await session.scalars(total)).one() - len(waiting)),
        unreadable=[job for job in live if job.state is JobState.QUEUED and job.id not in specs],
    )


def _queued(job: Job, spec: AlignmentJob, now: datetime, *, for_scores: bool) -> Queued:
    queued = Queued.of(job.id, job.project_id, spec, job.queued_at or job.created_at, job.gpus or 0.0)
    if for_scores:
        return replace(queued, held="Another job of its sweep scores the same pairs under the reference first.")
    if job.not_before is None or job.not_before <= now:
        return queued
    then = f"{job.not_before:%H:%M:%S} UTC"
    return replace(queued, held=f"Its next attempt begins at {then}, after a failure on our side.")


def _readable(jobs: Sequence[Job]) -> tuple[dict[str, AlignmentJob], list[Job]]:
    """Without those that another version accepted and this one does not take, which hold up nobody."""
    specs: dict[str, AlignmentJob] = {}
    for job in jobs:
        try:
            specs[job.id] = spec_of(job)
        except ValidationError:
            log.warning("%s is left out of the queue: this version does not take its options", job.id)
    return specs, [job for job in jobs if job.id in specs]


def spec_of(job: Job) -> AlignmentJob:
    """Parsed once for as long as it stays the same: the queue is looked at again and again."""
    return _parsed(json.dumps(job.spec))


@lru_cache(maxsize=_SPECS)
def _parsed(spec: str) -> AlignmentJob:
    return AlignmentJob.model_validate_json(spec)


def _live_jobs(now: datetime) -> Select[Job]:
    """Those on the cluster, and of each project `PER_PROJECT`: half by priority, half by age; what is held back for
    another job or a time comes after what may start."""
    held = case((or_(waits_for_scores(), Job.not_before > now), 1), else_=0)
    ranked = (
        select(
            Job.id,
            func.row_number()
            .over(partition_by=Job.project_id, order_by=(held, Job.priority.desc(), Job.id))
            .label("turn"),
            func.row_number().over(partition_by=Job.project_id, order_by=(held, Job.id)).label("age"),
        )
        .where(Job.state == JobState.QUEUED)
        .subquery()
    )
    half = PER_PROJECT // 2
    chosen = (
        select(ranked.c.id)
        .where(or_(ranked.c.turn <= PER_PROJECT - half, ranked.c.age <= half))
        .order_by(ranked.c.turn, ranked.c.id)
        .limit(IN_ALL)
    )
    # Joined by UNION: with OR, all jobs that there ever were are looked through.
    on_cluster = select(Job.id).where(Job.state.in_(ON_CLUSTER))
    live = union_all(on_cluster, select(chosen.subquery().c.id)).subquery()
    return select(Job).where(Job.id.in_(select(live.c.id))).order_by(Job.id)


async def _limits(session: AsyncSession, project_ids: Collection[str], now: datetime) -> dict[str, Limit]:
    limits = {}
    for project in await session.scalars(select(Project).where(Project.id.in_(project_ids))):
        quota = Quota.model_validate(project.quota)
        if quota.max_running_jobs is quota.max_gpus is quota.max_gpu_hours_month is None:
            continue
        hours = quota.max_gpu_hours_month is not None
        limits[project.id] = Limit(
            quota,
            await gpu_hours(session, project.id, now) if hours else 0.0,
            await gpus_served(session, project.id) if quota.max_gpus is not None else 0.0,
        )
    return limits


async def _gpu_seconds(session: AsyncSession, now: datetime, window_s: float) -> dict[str, float]:
    """By project: what its attempts held within the window. An attempt that needs no GPU counts as one."""
    since, until = (literal(time, UtcDateTime()) for time in (now - timedelta(seconds=window_s), now))
    begun = case((Attempt.created_at < since, since), else_=Attempt.created_at)
    ended = func.coalesce(Attempt.finished_at, until)
    gpus = case((Job.gpus > 1, Job.gpus), else_=1.0)
    held = case((ended > begun, seconds_between(begun, ended) * gpus), else_=0.0)
    used = (
        select(Job.project_id, func.sum(held))
        .join(Attempt, Attempt.job_id == Job.id)
        .where(or_(Attempt.finished_at > since, Attempt.finished_at.is_(None)))
        .group_by(Job.project_id)
    )
    # Added up by the database: a row of each attempt took longer to read than the plan takes. Rounded, since it adds in
    # any order, and what is equal must stay so.
    return {project_id: round(seconds, 3) for project_id, seconds in await session.execute(used)}
