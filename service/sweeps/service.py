"""Sweeps: jobs that are made together, share one reference pass and are compared."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Job, Sweep
from service.errors import IdempotencyConflict, InvalidRequest, InvalidState, NotFound, QuotaExceeded
from service.ids import is_id, new_id
from service.jobs import admission
from service.jobs.continuation import with_adapter_options
from service.jobs.log import LogRepository, Split
from service.jobs.service import cancel as cancel_job
from service.jobs.service import check_key, enqueue
from service.projects import usage
from service.queue.size import JobSize
from service.settings import Settings
from service.spec import AlignmentJob
from service.spec.rows import RowNeeds
from service.sweeps.members import SweepRequest, expand, reference_group
from service.text import first_unstorable


@dataclass(frozen=True)
class Member:
    """A job of a sweep: what it changes, and what was measured last, by split."""

    job: Job
    changes: dict[str, Any]
    metrics: dict[Split, dict[str, float | None]]


async def create(
    database: Database, settings: Settings, project_id: str, request: SweepRequest, idempotency_key: str | None = None
) -> tuple[Sweep, bool]:
    """Check and queue all the jobs, or none; returns the sweep and whether an earlier request with this key made it.

    Raises what `submit` raises for a job, naming which one, and what `expand` raises.
    """
    check_key(idempotency_key)
    body = request.model_dump(mode="json", exclude_unset=True)
    if field := first_unstorable(body):
        raise InvalidRequest(f"'{field}' holds a NUL character, which is not text: remove it.", field=field)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    if idempotency_key is not None and (sweep := await _replayed(database, project_id, idempotency_key, digest)):
        return sweep, True
    members = expand(request)
    checked = await _checked(database, settings, project_id, [spec for _, spec in members])
    await usage.measure_models(database, settings, project_id)
    sweep = Sweep(
        id=new_id("sweep"),
        project_id=project_id,
        idempotency_key=idempotency_key,
        body_sha256=digest,
        name=request.name,
        changes=[changes for changes, _ in members],
        created_at=utc_now(),
    )
    try:
        async with database.transaction() as session:
            session.add(sweep)
            await session.flush()
            await usage.hold_quota(session, project_id)
            await admission.hold(session, project_id, *(spec for spec, _ in checked))
            for index, (spec, size) in enumerate(checked):
                place: dict[str, Any] = {
                    "sweep_id": sweep.id,
                    "sweep_index": index,
                    "reference_group": reference_group(sweep.id, spec),
                }
                await enqueue(session, settings, project_id, spec, digest, size, **place)
            await audit.record(session, sweep.id)
    except (IntegrityError, QuotaExceeded):
        # Two requests with one key raced; the other one came through, and may have taken the last of a quota.
        if idempotency_key is None or not (made := await _replayed(database, project_id, idempotency_key, digest)):
            raise
        return made, True
    return sweep, False


async def get(session: AsyncSession, project_id: str, sweep_id: str) -> Sweep:
    """Raises NotFound, also for a sweep of another project."""
    found = select(Sweep).where(Sweep.id == sweep_id, Sweep.project_id == project_id)
    sweep = (await session.scalars(found)).one_or_none() if is_id("sweep", sweep_id) else None
    if sweep is None:
        raise NotFound("There is no such sweep among yours. GET /v1/sweeps lists them.")
    return sweep


async def page(
    session: AsyncSession, project_id: str, *, limit: int, cursor: str | None = None
) -> tuple[Sequence[Sweep], str | None]:
    """At most `limit` sweeps, newest first, from after `cursor`; and the cursor of the next page, None at the end."""
    found = select(Sweep).where(Sweep.project_id == project_id)
    if cursor is not None:
        if not is_id("sweep", cursor):
            raise InvalidRequest("'cursor' is not one that this list gave out.", field="cursor")
        found = found.where(Sweep.id < cursor)
    sweeps = (await session.scalars(found.order_by(Sweep.id.desc()).limit(limit + 1))).all()
    return sweeps[:limit], sweeps[limit - 1].id if len(sweeps) > limit else None


async def members_of(session: AsyncSession, sweep: Sweep) -> list[Member]:
    """Those that have not been deleted, in the order of the request."""
    log = LogRepository(session)
    splits: tuple[Split, ...] = ("train", "held_out")
    members = []
    for job in await _jobs_of(session, sweep):
        newest = {split: await log.newest_metric(job.id, split) for split in splits}
        metrics = {split: metric.values for split, metric in newest.items() if metric is not None}
        assert job.sweep_index is not None
        members.append(Member(job, sweep.changes[job.sweep_index], metrics))
    return members


async def cancel(database: Database, project_id: str, sweep_id: str) -> Sweep:
    """Ask for every job that has not ended to stop. Idempotent. Raises NotFound."""
    async with database.reading() as session:
        sweep = await get(session, project_id, sweep_id)
        jobs = await _jobs_of(session, sweep)
    for job in jobs:
        try:
            await cancel_job(database, project_id, job.id)
        except (InvalidState, NotFound):  # it has ended, or was deleted in the meantime
            continue
    return sweep


async def _jobs_of(session: AsyncSession, sweep: Sweep) -> Sequence[Job]:
    found = select(Job).where(Job.sweep_id == sweep.id, Job.deleted_at.is_(None))
    return (await session.scalars(found.order_by(Job.sweep_index))).all()


async def _checked(
    database: Database, settings: Settings, project_id: str, specs: list[AlignmentJob]
) -> list[tuple[AlignmentJob, JobSize]]:
    """The specifications as they are to be queued, and how big each job is. Rows that several jobs need in the same way
    are read once."""
    read: dict[tuple[str, RowNeeds], JobSize] = {}
    checked = []
    for index, spec in enumerate(specs):
        rows = (spec.data.model_dump_json(), RowNeeds.of(spec))
        try:
            size = await admission.check(database, settings, project_id, spec, data=read.get(rows))
            checked.append((await with_adapter_options(database, settings, project_id, spec), size))
        except InvalidRequest as error:
            raise type(error)(f"Job {index} of the sweep: {error.detail}", **error.extra, job=index) from error
        read[rows] = size
    return checked


async def _replayed(database: Database, project_id: str, key: str, digest: str) -> Sweep | None:
    async with database.reading() as session:
        found = select(Sweep).where(Sweep.project_id == project_id, Sweep.idempotency_key == key)
        sweep = (await session.scalars(found)).one_or_none()
    if sweep is not None and sweep.body_sha256 != digest:
        raise IdempotencyConflict(
            f"This Idempotency-Key made {sweep.id} from another body: use a new key for a new sweep.", sweep_id=sweep.id
        )
    return sweep
