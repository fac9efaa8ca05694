"""Copies published models into the object store."""

import asyncio
import logging
from collections.abc import Collection

from sqlalchemy import select

from service.archive import folder
from service.archive.manifest import manifest_of
from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.session import Database
from service.db.tables import Job
from service.errors import Unavailable
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import Storage

log = logging.getLogger(__name__)


async def next_job(database: Database, *, without: Collection[str] = ()) -> Job | None:
    """Of the jobs whose models are on the storage alone, the one that finished first."""
    found = select(Job).where(
        Job.state == JobState.SUCCEEDED,
        Job.model_archived_at.is_(None),
        Job.model_deleted_at.is_(None),
        Job.finished_at.is_not(None),
        Job.id.not_in(without),
    )
    async with database.reading() as session:
        return (await session.scalars(found.order_by(Job.finished_at).limit(1))).one_or_none()


async def archive(database: Database, settings: Settings, job: Job) -> bool:
    """Copy the job's model into the object store; whether there was a model to copy.

    Killed at any point, it is done again from the start. A model that is deleted meanwhile leaves nothing, unless this
    process is killed too: `service.archive.sweep` removes that. Raises Unavailable.
    """
    assert settings.models_url is not None
    url = folder.address(settings.models_url, job.id)
    directory = Storage(settings.storage_root).model(job.id)
    try:
        manifest = await asyncio.to_thread(manifest_of, job.id, directory)
        await folder.put(url, directory, manifest)
    except FileNotFoundError as error:
        if directory.is_dir():
            raise Unavailable(f"The object store of {url} is not there: {error}.") from error
        manifest = None
    async with database.transaction() as session:
        fresh = await JobRepository(session).get(job.id, lock=True)
        if manifest is not None and fresh.model_deleted_at is None:
            written = {"model_archived_at": utc_now(), "model_archive": url, "model_bytes": manifest.bytes}
            await guarded_update(session, fresh, written)
            message = "The object store has a copy of the model."
            await append_event(session, fresh, "model.archived", message, data={"url": url, "bytes": manifest.bytes})
            return True
    if fresh.model_deleted_at is None:
        log.warning("the model of %s is not on the storage, and so not copied into the object store", job.id)
        return False
    await folder.remove(url)
    return True
