"""What an attempt and the API say to each other (`/internal/attempts/...`).

An attempt numbers its reports 1, 2, 3...; the API takes each number once and in order, so a batch that is sent again
after a lost answer changes nothing. An empty batch is a heartbeat.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.spec.job import AlignmentJob
from service.spec.stages import Stage

MAX_COUNT = 2**53  # what a float, and so any reader of JSON, holds exactly


class WireModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


NODE_DRAINED = "node_drained"  # code of a failure that is none: the attempt has left a node that is to go


class Fault(StrEnum):
    """Who can do something about a failure."""

    USER = "user"  # another request would work; the message says which
    SYSTEM = "system"  # ours: the attempt is retried, then the job fails


class Failure(WireModel):
    """Why an attempt, and in the end a job, failed."""

    code: str = Field(description="Stable identifier, snake_case.", examples=["tokenizer_missing"])
    message: str = Field(description="What happened and what to do, in one or two sentences.")
    fault: Fault
    stage: Stage | None = None
    log_tail: list[str] = Field(default_factory=list, description="Last lines of the attempt's log.")


class EventReport(WireModel):
    """Something that happened once: appended to the job's event log."""

    kind: Literal["event"] = "event"
    type: str = Field(pattern=r"^[a-z]+(\.[a-z_]+)+$", max_length=60, examples=["reference.scored"])
    stage: Stage | None = None
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


class MetricsReport(WireModel):
    """Values of one optimizer step, or of the held-out rows after it. A step that is repeated after a resume replaces
    the earlier values. A value that is not finite is sent as null."""

    kind: Literal["metrics"] = "metrics"
    step: int = Field(ge=0, le=2**31 - 1)
    split: Literal["train", "held_out"] = "train"
    values: dict[str, float | None]


class ProgressReport(WireModel):
    """How far a stage is: the newest replaces the last. `done == total` completes the stage."""

    kind: Literal["progress"] = "progress"
    stage: Stage
    done: int = Field(ge=0, le=MAX_COUNT)
    total: int = Field(ge=0, le=MAX_COUNT)
    unit: str = Field(max_length=40, examples=["rows", "pairs", "steps", "bytes"])


class OutcomeReport(WireModel):
    """The attempt's last word."""

    kind: Literal["outcome"] = "outcome"
    result: Literal["succeeded", "failed", "paused", "cancelled"]
    failure: Failure | None = Field(None, description="Set exactly when the result is `failed`.")


Report = Annotated[EventReport | MetricsReport | ProgressReport | OutcomeReport, Field(discriminator="kind")]


class ReportBatch(WireModel):
    first_seq: int = Field(ge=1, description="Number of the first report in this batch.")
    reports: list[Report] = Field(max_length=1000)
    waited_s: float = Field(
        0, ge=0, allow_inf_nan=False, description="How long the oldest of them has waited in the attempt, in seconds."
    )


class ReportAck(WireModel):
    last_seq: int = Field(description="Number of the last report that is stored; send from the next one on.")
    cancel: bool = Field(description="The job is to be cancelled: stop, and report `cancelled`.")
    pause: bool = Field(False, description="The job is to be paused: save a checkpoint, stop, and report `paused`.")


class AttemptBrief(WireModel):
    """Everything an attempt needs to know, answered to `GET /internal/attempts/{id}` with the attempt's token."""

    attempt_id: str
    attempt_number: int
    job_id: str
    spec: AlignmentJob
    storage: str = Field(description="Root of the cluster's storage; see service.spec.layout.")
    reference_store: str = Field("reference", description="Directory of the reference store, under that root.")
    train_file: str | None = Field(
        description="Path of the training file, under that root or absolute; null if the attempt is to fetch "
        "`spec.data.train`."
    )
    validation_file: str | None = Field(None, description="Path of the validation file, if there is one; as above.")
    data_roots: list[str] = Field(
        default_factory=list, description="Directories that a training file named by its path must lie in."
    )
    allow_private_urls: list[str] = Field(
        default_factory=list, description="Private networks that https:// sources may lie in."
    )
    allowed_urls: list[str] = Field(
        default_factory=lambda: ["*"],
        description="Patterns of scheme://host that https:// sources must match, after a redirect too.",
    )
    max_download_bytes: int = Field(64 * 2**30, description="Of what is fetched by https://.")
    download_timeout_s: float = Field(3600, description="For all of that.")
    heartbeat_every_s: float
