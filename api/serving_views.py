"""What clients see of checkpoints that were made into models, and of names that models were promoted to."""

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from api.views import CheckpointView, View
from service.jobs.states import ExportState, PromotionState

if TYPE_CHECKING:  # the client reads answers by these models, and needs no database
    from service.db import serving_tables


class ExportView(View):
    """A checkpoint as a model of its own."""

    job_id: str
    step: int
    model: str = Field(
        description="Its name wherever a model is asked for, once it is `ready`.",
        examples=["job:job-019316f0a6b2f3c1d4e5a@50"],
    )
    state: ExportState
    message: str | None = Field(description="Why it failed, or is tried again.")
    bytes: int | None = Field(description="Of the model, when it is there.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, export: "serving_tables.CheckpointExport") -> "ExportView":
        return cls(
            job_id=export.job_id,
            step=export.step,
            model=f"job:{export.job_id}@{export.step}",
            state=export.state,
            message=export.message,
            bytes=export.bytes,
            created_at=export.created_at,
            updated_at=export.updated_at,
        )


class ExportDeleted(View):
    job_id: str
    step: int
    object: Literal["checkpoint_export"] = "checkpoint_export"
    deleted: Literal[True] = True


class CheckpointEntry(CheckpointView):
    resumable: bool = Field(description="Whether the job can go on from it; exported ones stay without that.")
    export: ExportView | None = Field(description="The model that was made, or is being made, of it.")


class CheckpointPage(View):
    data: list[CheckpointEntry]


class PromotionView(View):
    """A model that was to be what a name means."""

    id: str = Field(examples=["promotion-019316f0a6b2f3c1d4e5a"])
    name: str
    model: str = Field(examples=["job:job-019316f0a6b2f3c1d4e5a"])
    job_id: str
    step: int | None = Field(description="Of the checkpoint; null for what the job published.")
    state: PromotionState
    message: str | None
    restores: str | None = Field(description="The earlier promotion that a rollback went back to.")
    created_at: datetime
    became_current_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, promotion: "serving_tables.Promotion") -> "PromotionView":
        which = promotion.job_id if promotion.step is None else f"{promotion.job_id}@{promotion.step}"
        return cls(
            id=promotion.id,
            name=promotion.name,
            model=f"job:{which}",
            job_id=promotion.job_id,
            step=promotion.step,
            state=promotion.state,
            message=promotion.message,
            restores=promotion.restores,
            created_at=promotion.created_at,
            became_current_at=promotion.became_current_at,
            ended_at=promotion.ended_at,
        )


class PromotionHistory(View):
    name: str
    current: PromotionView | None = Field(description="What the name means now.")
    pending: PromotionView | None = Field(description="What it is to mean as soon as that answers.")
    data: list[PromotionView] = Field(description="All of them, newest first.")
