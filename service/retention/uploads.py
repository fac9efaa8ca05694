"""Uploaded files that no job has needed for long."""

from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.db.session import Database
from service.db.tables import File, Job
from service.errors import InvalidState, NotFound
from service.files import service as files
from service.files.contents import named_in
from service.jobs.states import LIVE
from service.retention.policy import EVERY_PROJECT, Scope
from service.settings import Settings

MAX_FILES = 100  # of one sweep


async def sweep(database: Database, settings: Settings, before: datetime, scope: Scope = EVERY_PROJECT) -> int:
    """Delete files uploaded before `before` that no job since then was on, as clients delete them; returns how many."""
    async with database.reading() as session:
        uploaded = select(File.id, File.project_id).where(File.deleted_at.is_(None), File.created_at < before)
        old = (await session.execute(uploaded.where(scope.holds(File.project_id)).order_by(File.id))).all()
        needed = await _needed_since(session, before) if old else set()
    removed = 0
    for file_id, project_id in [(file_id, project_id) for file_id, project_id in old if file_id not in needed]:
        if removed == MAX_FILES:
            break
        try:
            with audit.begin(audit.Act("retention", project_id=project_id)):
                await files.delete(database, settings, project_id, file_id)
        except (InvalidState, NotFound):  # a job has come that needs it, or a client was quicker
            continue
        removed += 1
    return removed


async def _needed_since(session: AsyncSession, before: datetime) -> set[str]:
    """Files that are named in jobs that have not ended, or ended after `before`."""
    jobs = select(Job.spec["data"]).where(or_(Job.state.in_(LIVE), Job.finished_at >= before))
    needed: set[str] = set()
    for data in await session.scalars(jobs):
        needed |= named_in(data)
    return needed
