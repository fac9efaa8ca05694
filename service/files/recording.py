"""The transaction that writes down bytes that are stored already."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from service.db.session import Database


@asynccontextmanager
async def recording(database: Database, remove: Callable[[], Awaitable[None]]) -> AsyncIterator[AsyncSession]:
    """A transaction that adds the row of stored bytes. If it ends without a commit, `remove` takes the bytes away.

    If the answer to the commit is lost, the row may be there: the bytes stay, and if no row names them the sweep
    removes them a day later. Raises as `Database.transaction` does.
    """
    committing = False
    try:
        async with database.transaction() as session:
            yield session
            await session.flush()  # so that what the row breaks is known before the commit
            committing = True
    finally:
        if not committing:
            await remove()
