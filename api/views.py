"""What clients see of the rows: the response models, and how they are made."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.queue_views import EtaView, Place, WaitingView
from service.jobs.progress import eta_s
from service.jobs.states import DeploymentState, JobState
from service.pairs.derivation import Derivation
from service.spec import Stage
from service.spec.reports import Failure
from service.spec.secrets import shown_spec

if TYPE_CHECKING:  # the client reads answers by these models, and needs no database
    from service.db import tables
    from service.queue.view import QueueNow


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class StageProgress(View):
    done: int
    total: int
    unit: str
    started_at: datetime
    updated_at: datetime
    eta_s: float | None = Field(description="Seconds from `updated_at` to the end of the stage, at the rate so far.")


class DeploymentView(View):
    """A job's base and aligned model on Ray Serve."""

    job_id: str
    step: int | None = Field(None, description="Of the checkpoint that is served in place of what the job published.")
    state: DeploymentState
    message: str | None
    used_at: datetime | None = Field(None, description="When they were last asked, to some seconds.")
    created_at: datetime
    updated_at: datetime


class JobView(View):
    id: str = Field(examples=["job-019316f0a6b2f3c1d4e5a"])
    object: Literal["job"] = "job"
    project_id: str
    name: str | None
    state: JobState
    stage: Stage | None = Field(description="The furthest stage that the present attempt has reached.")
    progress: dict[Stage, StageProgress]
    spec: dict[str, Any] = Field(description="The AlignmentJob as it was accepted, defaults filled in.")
    error: Failure | None
    attempts: int
    next_attempt_at: datetime | None = Field(
        description="Of a queued job whose last attempt failed on our side: when the next one may begin."
    )
    gpu_hours: float = Field(description="Held by the attempts that have ended; see `resources.max_gpu_hours`.")
    owner: str | None = Field(description="Who made it: a user, or the name of a key that belongs to none.")
    loss_points: list[tuple[int, float]] = Field(
        description="Step and training loss, at some dozens of steps: enough for a small curve."
    )
    cloned_from: str | None = Field(description="The job whose specification it began with.")
    sweep_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deployment: DeploymentView | None
    waiting: WaitingView | None = Field(description="Why it waits; null unless it is queued.")
    eta: EtaView | None = Field(description="Null if nothing is known, and when it has ended.")

    @classmethod
    def of(
        cls, job: "tables.Job", deployment: "tables.Deployment | None", queue: "QueueNow | None" = None
    ) -> "JobView":
        place = Place.of(job, queue)
        return cls(
            id=job.id,
            project_id=job.project_id,
            name=job.spec.get("name"),
            state=job.state,
            stage=Stage(job.stage) if job.stage else None,
            progress={
                Stage(stage): StageProgress.model_validate(entry | {"eta_s": eta_s(entry)})
                for stage, entry in job.progress.items()
            },
            spec=shown_spec(job.spec),
            error=Failure.model_validate(job.error) if job.error else None,
            attempts=job.num_attempts,
            next_attempt_at=job.not_before,
            gpu_hours=job.gpu_seconds / 3600,
            owner=job.owner,
            loss_points=job.loss_line["points"] if job.loss_line else [],
            cloned_from=job.cloned_from,
            sweep_id=job.sweep_id,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            deployment=DeploymentView.model_validate(deployment) if deployment else None,
            waiting=place.waiting,
            eta=place.eta,
        )


class JobDeleted(View):
    id: str
    object: Literal["job"] = "job"
    deleted: Literal[True] = True


class CheckpointView(View):
    step: int
    saved_at: datetime
    bytes: int
    metrics: dict[str, dict[str, float | None]] = Field(description="What was measured at its step, by split.")


class JobPage(View):
    data: list[JobView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


class QueuedJobs(View):
    data: list[JobView]
    more: int = Field(description="Further ones of your project, which come after these.")


class EventView(View):
    """Something that happened once. Numbers count 1, 2, 3... for each job, without gaps."""

    number: int
    type: str = Field(examples=["reference.scored"])
    stage: Stage | None
    message: str
    data: dict[str, Any]
    attempt: int | None
    created_at: datetime


_REMOVED_TO = Field(description="What is numbered up to here has been removed by retention; 0 if nothing has.")


class EventPage(View):
    data: list[EventView]
    next_after: int | None = Field(description="`after` of the next page; null when there is no more yet.")
    removed_to: int = _REMOVED_TO


class MetricView(View):
    """Values of one step. When a resumed attempt repeats a step, the higher number counts."""

    number: int
    split: str
    step: int
    values: dict[str, float | None]
    attempt: int
    created_at: datetime


class MetricPage(View):
    data: list[MetricView]
    next_after: int | None = Field(description="`after` of the next page; null when there is no more yet.")
    removed_to: int = _REMOVED_TO


class CurvePointView(View):
    """Neighbouring steps. Metrics without a finite value in them are left out."""

    first_step: int
    last_step: int
    num_steps: int
    mean: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]


class Curve(View):
    through: int = Field(
        description="Metrics up to this number are in it: a stream with it as `Last-Event-ID` goes on from here."
    )
    data: list[CurvePointView]


class LogView(View):
    """Lines as they were written, secrets as `***`."""

    attempt: int | None = Field(description="Whose log it is; null while the job has not been started.")
    lines: list[str] = Field(description="Oldest first. None once the cluster does not keep them any more.")
    more: bool = Field(description="Whether there are earlier lines.")
    live: bool = Field(description="Whether lines may still come.")


class FileView(View):
    """Ours and that of OpenAI's package in one."""

    id: str = Field(examples=["file-019316f0a6b2f3c1d4e5a"])
    object: Literal["file"] = "file"
    filename: str
    bytes: int
    sha256: str
    created_at: datetime | int = Field(
        description="For a client that sends `x-stainless-lang`, as OpenAI's packages do, in seconds since 1970."
    )
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["processed"] = "processed"
    derived_from: Derivation | None = Field(None, description="Of a file that was made from another one.")

    @classmethod
    def of(cls, file: "tables.File", *, in_seconds: bool) -> "FileView":
        view = cls.model_validate(file)
        return view.model_copy(update={"created_at": int(file.created_at.timestamp())}) if in_seconds else view


class FilePage(View):
    object: Literal["list"] = "list"
    data: list[FileView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")
    first_id: str | None
    last_id: str | None = Field(description="`after` of the next page.")
    has_more: bool


class FileDeleted(View):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class Answer(View):
    text: str
    finish_reason: str | None
    usage: dict[str, int]


class Comparison(View):
    base: Answer
    aligned: Answer
    seed: int
