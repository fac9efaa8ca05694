"""What is told of a transaction is told when it has been committed: one that is rolled back never was."""

from collections.abc import Callable

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

_KEY = "plumbline_after_commit"


def after_commit(session: AsyncSession, tell: Callable[[], None]) -> None:
    """Call `tell` once the session's present transaction is committed, in order; never if it is rolled back."""
    session.sync_session.info.setdefault(_KEY, []).append(tell)


# Of every session, once: to listen to a single one takes longer than to write what it tells of.
@event.listens_for(Session, "after_commit")
def _tell(session: Session) -> None:
    for tell in session.info.pop(_KEY, []):
        tell()


@event.listens_for(Session, "after_soft_rollback")
def _forget(session: Session, _previous: object) -> None:
    session.info.pop(_KEY, None)
