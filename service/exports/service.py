"""Which checkpoints are wanted as models. The controller has them made on the cluster."""

import asyncio
import shutil
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.archive.exported import remove_archive
from service.archive.local import set_aside
from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.errors import InvalidState, NotFound
from service.exports.pin import pin, unpin
from service.jobs import users
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import ExportState
from service.projects import usage
from service.settings import Settings
from service.spec import Storage

UNDER_WAY = (ExportState.REQUESTED, ExportState.RUNNING)


async def request(database: Database, settings: Settings, project_id: str, job_id: str, step: int) -> CheckpointExport:
    """Ask for the model of the job's checkpoint after `step`; again after a failure or a deletion, else nothing
    changes. The checkpoint is kept from then on, whatever becomes of the job's own.

    Raises NotFound if there is no such job or checkpoint, InvalidState while an earlier model of it is being deleted,
    and QuotaExceeded if the project's storage is full.
    """
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        export = await find(session, job.id, step)
        is_new = export is None or export.state is ExportState.FAILED
        if is_new:  # before anything is pinned, and again below, when others may have filled it
            await usage.hold_for_bytes(session, project_id, 0)  # its size is not known yet; a full project gets no more
    if is_new and not await asyncio.to_thread(pin, Storage(settings.storage_root), job.id, step):
        raise NotFound(
            f"{job.id} has no checkpoint after step {step}: GET /v1/jobs/{job.id}/checkpoints lists those that it has."
        )
    async with database.transaction() as session:
        await usage.hold_quota(session, project_id)  # before the job, as whoever makes a job of its model does
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        export = await find(session, job.id, step)
        if export is not None and export.deleted_at is not None:
            raise InvalidState("The model of this checkpoint is being deleted: try again in a moment.")
        if export is not None and export.state is not ExportState.FAILED:
            return export
        await usage.hold_for_bytes(session, project_id, 0)
        now = utc_now()
        if export is None:
            export = CheckpointExport(
                job_id=job.id,
                step=step,
                state=ExportState.REQUESTED,
                generation=1,
                failures=0,
                created_at=now,
                updated_at=now,
            )
            session.add(export)
        else:
            if export.removed_at is not None:
                export.created_at, export.removed_at = now, None
            export.state, export.message, export.failures = ExportState.REQUESTED, None, 0
            export.generation += 1
            export.updated_at = now
        await session.flush()
        await _tell(session, job, export, "export_requested", "A model is being made of it.")
        await audit.record(session, deployments.deployment_id(job.id, step))
        return export


async def find(session: AsyncSession, job_id: str, step: int) -> CheckpointExport | None:
    return await session.get(CheckpointExport, (job_id, step), populate_existing=True)


async def get(session: AsyncSession, job: Job, step: int) -> CheckpointExport:
    """Raises NotFound if nobody asked for it, or it was deleted."""
    export = await find(session, job.id, step)
    if export is None or export.deleted_at is not None or export.removed_at is not None:
        raise NotFound(
            f"The checkpoint after step {step} is not exported: POST /v1/jobs/{job.id}/checkpoints/{step}/export."
        )
    return export


async def of_job(session: AsyncSession, job_id: str) -> Sequence[CheckpointExport]:
    """Those that are not deleted, by step."""
    there = CheckpointExport.deleted_at.is_(None), CheckpointExport.removed_at.is_(None)
    mine = select(CheckpointExport).where(CheckpointExport.job_id == job_id, *there)
    return (await session.scalars(mine.order_by(CheckpointExport.step))).all()


async def ready_in_project(
    session: AsyncSession, project_id: str, *, limit: int, after: tuple[str, int] | None = None
) -> Sequence[tuple[Job, CheckpointExport]]:
    """The models that there are, newest job first. after: job and step of the last one of the page before."""
    there = CheckpointExport.state == ExportState.READY, CheckpointExport.deleted_at.is_(None)
    found = (
        select(Job, CheckpointExport)
        .join(CheckpointExport, CheckpointExport.job_id == Job.id)
        .where(Job.project_id == project_id, Job.deleted_at.is_(None), *there)
        .order_by(Job.id.desc(), CheckpointExport.step.desc())
        .limit(limit)
    )
    if after is not None:
        job_id, step = after
        found = found.where((Job.id < job_id) | ((Job.id == job_id) & (CheckpointExport.step < step)))
    return [(job, export) for job, export in await session.execute(found)]


async def unsettled(session: AsyncSession) -> Sequence[CheckpointExport]:
    """Those that the controller has something to do for, oldest first."""
    due = CheckpointExport.state.in_(UNDER_WAY) | CheckpointExport.deleted_at.is_not(None)
    chosen = select(CheckpointExport).where(due).order_by(CheckpointExport.created_at, CheckpointExport.job_id)
    return (await session.scalars(chosen.order_by(CheckpointExport.step))).all()


async def submitted(session: AsyncSession, export: CheckpointExport) -> None:
    """Raises InvalidState, as all that follow do, if the export was changed since it was read."""
    await _update(session, export, {"state": ExportState.RUNNING})


async def succeeded(session: AsyncSession, export: CheckpointExport, num_bytes: int) -> None:
    job = await _locked_job(session, export)
    await _update(session, export, {"state": ExportState.READY, "message": None, "bytes": num_bytes})
    name = f"job:{deployments.deployment_id(export.job_id, export.step)}"
    await _tell(session, job, export, "exported", f"Its model is there, as {name}.", bytes=num_bytes)


async def try_again(session: AsyncSession, export: CheckpointExport, reason: str) -> None:
    """After a failure on our side."""
    again = {"generation": export.generation + 1, "failures": export.failures + 1}
    await _update(session, export, {"state": ExportState.REQUESTED, "message": reason} | again)


async def failed(session: AsyncSession, export: CheckpointExport, reason: str) -> None:
    job = await _locked_job(session, export)
    await _update(session, export, {"state": ExportState.FAILED, "message": reason})
    await _tell(session, job, export, "export_failed", f"No model could be made of it: {reason}")


async def delete_model(database: Database, settings: Settings, project_id: str, job_id: str, step: int) -> None:
    """Delete the exported model, or forget the failed export. From the commit on nothing may use it; its files go then,
    and what a crash leaves of them the controller removes.

    Raises NotFound, and InvalidState while it is being made, is deployed, or something is built on it.
    """
    async with database.transaction() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id, lock=True)
        export = await get(session, job, step)
        await require_unused(session, job, export)
        await _update(session, export, {"deleted_at": utc_now()})
        await _tell(session, job, export, "model_deleted", "Its model was deleted.")
        await audit.record(session, deployments.deployment_id(job.id, step))
    await finish_deletion(database, settings, export)


async def require_unused(session: AsyncSession, job: Job, export: CheckpointExport) -> None:
    """Raises InvalidState while the model is being made, is deployed, or a job or another model needs it."""
    if export.state in UNDER_WAY:
        raise InvalidState(f"The checkpoint after step {export.step} is being exported: wait until that has ended.")
    await users.require_none(session, job, export.step)


async def finish_deletion(database: Database, settings: Settings, export: CheckpointExport) -> None:
    """Remove what is left of a deleted model. Safe to run twice at once, and late: an export that was made anew since
    is left alone. Raises Unavailable."""
    storage = Storage(settings.storage_root)
    await remove_archive(settings, export)
    async with database.transaction() as session:
        key = export.job_id, export.step
        fresh = await session.get(CheckpointExport, key, with_for_update=True, populate_existing=True)
        if fresh is None or fresh.deleted_at is None or fresh.created_at != export.created_at:
            return
        aside = await asyncio.to_thread(set_aside, storage, export.job_id, export.step)
        await asyncio.to_thread(unpin, storage, export.job_id, export.step)
        now = utc_now()
        fresh.state, fresh.message, fresh.bytes = ExportState.FAILED, "Its model was deleted.", None
        fresh.archive, fresh.deleted_at, fresh.removed_at, fresh.updated_at = None, None, now, now
    if aside is not None:
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)


async def _update(session: AsyncSession, export: CheckpointExport, values: dict[str, Any]) -> None:
    as_read: tuple[ColumnElement[bool], ...] = (
        CheckpointExport.state == export.state,
        CheckpointExport.generation == export.generation,
        CheckpointExport.deleted_at.is_(None),
    )
    if not await guarded_update(session, export, values | {"updated_at": utc_now()}, *as_read):
        raise InvalidState(f"The export of {export.job_id}@{export.step} was changed in the meantime.")


async def _locked_job(session: AsyncSession, export: CheckpointExport) -> Job:
    """Before the export's row, as clients' requests lock them."""
    return await JobRepository(session).get(export.job_id, lock=True)


async def _tell(
    session: AsyncSession, job: Job, export: CheckpointExport, what: str, message: str, **data: Any
) -> None:
    told = f"Checkpoint after step {export.step}: {message}"
    await append_event(session, job, f"checkpoint.{what}", told, data={"step": export.step, **data})
