"""Calls to create a job whose client sends no Idempotency-Key, but says which requests repeat an earlier one.

A call is one wish of a client, sent in one request or in several. Each gets a key of its own, under which its job is
then submitted: of several requests for one call, the constraint on jobs lets one through, on whichever replica they
are. The same body asked for twice on purpose is two calls.
"""

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Call
from service.ids import new_id

# Since the call's last request. Longer than the ten minutes for which OpenAI's package waits before it repeats one.
WINDOW = timedelta(minutes=15)


async def key_of_call(
    database: Database, project_id: str, body_sha256: str, *, arrived: datetime, is_retry: bool
) -> str:
    """The Idempotency-Key for a request of the project with this body.

    A retry belongs to the newest call with the body, if that was heard of within `WINDOW`; every other request is a
    new call. One exception: a first request that was already here when its own retry was taken belongs to that one.
    arrived: when the request came, before it waited for anything.
    """
    while True:
        try:
            async with database.transaction() as session:
                return await _key(session, project_id, body_sha256, arrived, is_retry)
        except IntegrityError:  # two requests made the next call at once: one did, the other looks again
            continue


async def _key(session: AsyncSession, project_id: str, body_sha256: str, arrived: datetime, is_retry: bool) -> str:
    same_body = select(Call).where(Call.project_id == project_id, Call.body_sha256 == body_sha256)
    newest = (await session.scalars(same_body.order_by(Call.number.desc()).limit(1).with_for_update())).one_or_none()
    if newest is not None and is_retry and newest.heard_at > arrived - WINDOW:
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
        body_sha256=body_sha256,
        number=newest.number + 1 if newest is not None else 1,
        first_heard_by_retry=is_retry,
        created_at=utc_now(),
        heard_at=arrived,
    )
    session.add(call)
    await session.flush()
    return call.id
