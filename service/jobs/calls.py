"""Calls to create a job, file or upload whose client sends no Idempotency-Key, but says which requests repeat an
earlier one.

A call is one wish of a client, sent in one request or in several. Each gets a key of its own, under which what it makes
is then written down: of several requests for one call, the constraint on the table lets one through, on whichever
replica they are. The same body asked for twice on purpose is two calls, and so is the same body from two callers.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Call, File, Job, Upload
from service.ids import new_id
from service.jobs.states import JobState

# Since the call's last request. Longer than the ten minutes for which OpenAI's package waits before it repeats one.
WINDOW = timedelta(minutes=15)


@dataclass(frozen=True)
class Sent:
    """How a request came. key_id: of its caller. arrived: before it waited for anything."""

    key_id: str
    arrived: datetime
    is_retry: bool

    async def key(self, database: Database, project_id: str, *body: str) -> str:
        """`key_of_call` for a request of this body."""
        digest = hashlib.sha256("\n".join((self.key_id, *body)).encode()).hexdigest()
        return await key_of_call(database, project_id, digest, arrived=self.arrived, is_retry=self.is_retry)


async def key_of_call(
    database: Database, project_id: str, request_sha256: str, *, arrived: datetime, is_retry: bool
) -> str:
    """The Idempotency-Key for a request of the project with this digest of its caller and body.

    A retry belongs to the newest call with the digest, if that was heard of within `WINDOW` and what it made was
    neither cancelled nor deleted: whoever did that and asks again wants another one. (A job that has ended by itself
    may have done so while its answer was waited for.) Every other request is a new call. One exception: a first request
    that was already here when its own retry was taken belongs to that one.
    arrived: when the request came, before it waited for anything.
    """
    while True:
        try:
            async with database.transaction() as session:
                return await _key(session, project_id, request_sha256, arrived, is_retry)
        except IntegrityError:  # two requests made the next call at once: one did, the other looks again
            continue


async def _key(session: AsyncSession, project_id: str, request_sha256: str, arrived: datetime, is_retry: bool) -> str:
    same = select(Call).where(Call.project_id == project_id, Call.body_sha256 == request_sha256)
    newest = (await session.scalars(same.order_by(Call.number.desc()).limit(1).with_for_update())).one_or_none()
    within_window = newest is not None and newest.heard_at > arrived - WINDOW
    if newest is not None and is_retry and within_window and not await _is_withdrawn(session, newest):
        newest.heard_at = max(newest.heard_at, arrived)
        return newest.id
    if newest is not None and not is_retry and newest.first_heard_by_retry and newest.created_at > arrived:
        newest.first_heard_by_retry = False
        return newest.id
    over = delete(Call).where(Call.project_id == project_id, Call.heard_at < arrived - WINDOW)
    await session.execute(over, execution_options={"synchronize_session": False})
    call = Call(
        id=new_id("call"),
        project_id=project_id,
        body_sha256=request_sha256,
        number=newest.number + 1 if newest is not None else 1,
        first_heard_by_retry=is_retry,
        created_at=utc_now(),
        heard_at=arrived,
    )
    session.add(call)
    await session.flush()
    return call.id


async def _is_withdrawn(session: AsyncSession, call: Call) -> bool:
    """Whether somebody has cancelled or deleted what it made."""
    job = select(Job.id).where(Job.project_id == call.project_id, Job.idempotency_key == call.id)
    cancelled = Job.state.in_((JobState.CANCELLING, JobState.CANCELLED)) | Job.deleted_at.is_not(None)
    for withdrawn in (
        job.where(cancelled),
        select(File.id).where(File.call_id == call.id, File.deleted_at.is_not(None)),
        select(Upload.id).where(Upload.call_id == call.id, Upload.cancelled_at.is_not(None)),
    ):
        if (await session.scalars(withdrawn)).one_or_none() is not None:
            return True
    return False
