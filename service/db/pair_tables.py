"""The table of what people say of training pairs."""

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables import Base
from service.pairs.actions import FlagAction


class PairFlag(Base):
    """A pair of a job that somebody calls mislabelled; the last word counts. The audit log has the ones before."""

    __tablename__ = "pair_flags"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    row: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)  # of the training file
    action: Mapped[FlagAction]
    note: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str | None] = mapped_column(String(40))  # none: a key from before there were users
    key_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
