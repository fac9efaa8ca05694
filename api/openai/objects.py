"""From our rows to the objects of OpenAI's package, each with what we know beyond it.

Times are whole seconds since 1970, as the package types them.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from api.queue_views import EtaView, WaitingView
from api.views import JobView, StageProgress
from service.db.serving_tables import CheckpointExport
from service.db.tables import Event, Job, Metric
from service.jobs.progress import eta_s
from service.jobs.states import JobState
from service.queue.view import QueueNow
from service.serving.models import model_name
from service.spec import AlignmentJob, LossKind, Stage
from service.spec.losses import SigmoidLoss
from service.spec.reports import Failure
from service.spec.shapes import DataShape

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class JobError(BaseModel):
    code: str
    message: str
    param: None = None


class UsedHyperparameters(BaseModel):
    """All null for a job of another version, whose options this one does not take."""

    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    n_epochs: float | None = None
    beta: float | None = None


class UsedMethod(BaseModel):
    type: Literal["supervised", "dpo"]
    supervised: dict[str, UsedHyperparameters] | None = None
    dpo: dict[str, UsedHyperparameters] | None = None


class FineTuningJob(BaseModel):
    id: str = Field(examples=["job-019316f0a6b2f3c1d4e5a"])
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    status: Status = Field(description="`running` exactly while an attempt of the job runs on the cluster.")
    model: str
    fine_tuned_model: str | None = Field(
        description="What the next job's `model` may say; null unless the job has succeeded and its model is kept."
    )
    training_file: str
    validation_file: str | None
    organization_id: str = Field(description="The project_id of the API key.")
    seed: int
    hyperparameters: UsedHyperparameters = Field(description="As they are used, with `auto` filled in.")
    method: UsedMethod | None = Field(description="Null for losses that are neither of OpenAI's methods.")
    suffix: str | None
    metadata: dict[str, str] | None
    error: JobError | None
    result_files: list[str] = Field(default_factory=list, description="Always empty: metrics are of the native API.")
    trained_tokens: None = None
    estimated_finish: int | None = Field(description="End of training at the rate so far; null at other times.")
    integrations: list[Any] = Field(default_factory=list)
    state: JobState = Field(description="The native state, which also knows `starting`, `pausing`, `paused`...")
    stage: Stage | None
    progress: dict[Stage, StageProgress]
    queue_position: int | None = Field(description="1 is next; null unless it waits, and in answers to a POST.")
    waiting: WaitingView | None = Field(description="Why it waits, as in the native API; null as `queue_position` is.")
    eta: EtaView | None = Field(description="When it is expected to start and finish, as in the native API.")
    attempts: int
    spec: dict[str, Any] = Field(description="The AlignmentJob that the request came to.")


class FineTuningEvent(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message"] = "message"
    data: dict[str, Any]
    event: str = Field(description="The native type.", examples=["reference.scored"])
    stage: Stage | None
    attempt: int | None


class FineTuningCheckpoint(BaseModel):
    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float | None]


def job_object(job: Job, *, attempt_runs: bool, queue: QueueNow | None = None) -> FineTuningJob:
    view = JobView.of(job, None, queue)
    spec = _spec(job)
    return FineTuningJob(
        id=job.id,
        created_at=seconds(job.created_at),
        finished_at=seconds(job.finished_at) if job.finished_at else None,
        status=_status(job.state, attempt_runs=attempt_runs),
        model=_text(view, "model", "source"),
        fine_tuned_model=model_name(job.id) if has_model(job) else None,
        training_file=_text(view, "data", "train"),
        validation_file=_text(view, "data", "validation") or None,
        organization_id=job.project_id,
        seed=spec.training.seed if spec else 0,
        hyperparameters=_hyperparameters(spec) if spec else UsedHyperparameters(),
        method=_method(spec) if spec else None,
        suffix=view.name,
        metadata=job.spec.get("metadata") or None,
        error=_error(view.error),
        estimated_finish=_estimated_finish(job),
        state=job.state,
        stage=view.stage,
        progress=view.progress,
        queue_position=view.waiting.position if view.waiting is not None else None,
        waiting=view.waiting,
        eta=view.eta,
        attempts=job.num_attempts,
        spec=view.spec,
    )


def event_object(event: Event) -> FineTuningEvent:
    return FineTuningEvent(
        id=event_id(event.job_id, event.number),
        created_at=seconds(event.created_at),
        level=_level(event.type),
        message=event.message,
        data=event.data,
        event=event.type,
        stage=Stage(event.stage) if event.stage else None,
        attempt=event.attempt,
    )


def checkpoint_object(job: Job, step: int, created: datetime, metrics: Mapping[str, Metric]) -> FineTuningCheckpoint:
    """What can be used as a model, up to `step`. metrics: what was measured then, by split."""
    told: dict[str, float | None] = {"step": step}
    if (trained := metrics.get("train")) is not None:
        told["train_loss"] = trained.values.get("loss")
        told["train_mean_token_accuracy"] = trained.values.get("token_accuracy")
    if (held_out := metrics.get("held_out")) is not None:
        told["full_valid_loss"] = held_out.values.get("loss")
        told["full_valid_mean_token_accuracy"] = held_out.values.get("token_accuracy")
    return FineTuningCheckpoint(
        id=f"{job.id}-step-{step}",
        created_at=seconds(created),
        fine_tuning_job_id=job.id,
        fine_tuned_model_checkpoint=model_name(job.id),
        step_number=step,
        metrics=told,
    )


def exported_object(job: Job, export: CheckpointExport, metrics: Mapping[str, Metric]) -> FineTuningCheckpoint:
    """An exported checkpoint, named as OpenAI names them."""
    made = checkpoint_object(job, export.step, export.updated_at, metrics)
    return made.model_copy(update={"fine_tuned_model_checkpoint": f"job:{job.id}:ckpt-step-{export.step}"})


def has_model(job: Job) -> bool:
    return job.state is JobState.SUCCEEDED and job.model_deleted_at is None


def event_id(job_id: str, number: int) -> str:
    return f"{job_id}-event-{number}"


def seconds(time: datetime) -> int:
    return int(time.timestamp())


def _spec(job: Job) -> AlignmentJob | None:
    """What the job asked for; None if that is an earlier or later version's, which must not hide the other jobs."""
    try:
        return AlignmentJob.model_validate(job.spec)
    except ValidationError:
        return None


def _text(view: JobView, part: str, member: str) -> str:
    """From the view, which hides what is secret in an address."""
    return str(view.spec.get(part, {}).get(member) or "")


def _status(state: JobState, *, attempt_runs: bool) -> Status:
    match state:
        case JobState.SUCCEEDED:
            return "succeeded"
        case JobState.FAILED:
            return "failed"
        case JobState.CANCELLED:
            return "cancelled"
        case (
            JobState.QUEUED
            | JobState.STARTING
            | JobState.RUNNING
            | JobState.PAUSING
            | JobState.PAUSED  # for which the package has no status
            | JobState.CANCELLING
        ):
            return "running" if attempt_runs else "queued"


def _error(failure: Failure | None) -> JobError | None:
    return JobError(code=failure.code, message=failure.message) if failure else None


def _method(spec: AlignmentJob) -> UsedMethod | None:
    used = {"hyperparameters": _hyperparameters(spec)}
    if spec.data_shape is DataShape.ANSWERS:
        return UsedMethod(type="supervised", supervised=used)
    if spec.losses[0].type is LossKind.SIGMOID:
        return UsedMethod(type="dpo", dpo=used)
    return None


def _hyperparameters(spec: AlignmentJob) -> UsedHyperparameters:
    first = spec.losses[0]
    return UsedHyperparameters(
        batch_size=spec.training.batch_size,
        learning_rate_multiplier=float(f"{spec.learning_rate / spec.default_learning_rate:.12g}"),
        n_epochs=spec.training.epochs,
        beta=first.beta if isinstance(first, SigmoidLoss) else None,
    )


def _estimated_finish(job: Job) -> int | None:
    entry = job.progress.get(Stage.TRAIN)
    if job.state is not JobState.RUNNING or job.stage != Stage.TRAIN or entry is None:
        return None
    left_s = eta_s(entry)
    if left_s is None:
        return None
    return ceil((datetime.fromisoformat(entry["updated_at"]) + timedelta(seconds=left_s)).timestamp())


def _level(type: str) -> Literal["info", "warn", "error"]:
    if type in ("job.failed", "deployment.failed"):
        return "error"
    return "warn" if type == "health.alarm" else "info"
