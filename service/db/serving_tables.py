"""The tables of what is served by a name of its own: exported checkpoints, and promoted models."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables import Base
from service.jobs.states import ExportState, PromotionState


class CheckpointExport(Base):
    """A checkpoint as a model of its own: `job:ID@STEP`."""

    __tablename__ = "checkpoint_exports"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[ExportState]
    message: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(Integer, default=1)  # of the try: part of its submission ID on the cluster
    failures: Mapped[int] = mapped_column(Integer, default=0)  # of ours, since it was last asked for
    bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the model
    archive: Mapped[str | None] = mapped_column(
        String(1000)
    )  # the model's folder in the object store, once it is whole
    deleted_at: Mapped[datetime | None]  # the model is not to be used any more; its files go
    # Its files are gone: no one sees the row, which keeps the number of its tries. Its state is `failed` then
    removed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ModelName(Base):
    """A stable name of a project's models. Its row is what two promotions at once queue on."""

    __tablename__ = "model_names"

    project_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    current_id: Mapped[str | None] = mapped_column(String(40))  # of the promotion that the name means; none: no model
    pending_id: Mapped[str | None] = mapped_column(String(40))  # of the one that waits until its model answers
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Promotion(Base):
    """A model that was to be what a name means: the name's history, oldest first by ID."""

    __tablename__ = "promotions"
    __table_args__ = (Index("ix_promotions_project_id_name_id", "project_id", "name", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(100))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    step: Mapped[int | None]
    state: Mapped[PromotionState]
    message: Mapped[str | None] = mapped_column(Text)
    restores: Mapped[str | None] = mapped_column(String(40))  # the earlier promotion that a rollback went back to
    created_at: Mapped[datetime]
    became_current_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]  # it is neither current nor pending any more
