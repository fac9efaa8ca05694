"""The tables. Times are UTC; a `version`-free schema: concurrent writers meet in constraints and guarded updates."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from service.evaluations.states import EvaluationState
from service.jobs.search import search_text
from service.jobs.states import AttemptState, DeploymentState, ExportState, JobState, PromotionState
from service.keys.roles import Role
from service.pairs.actions import FlagAction
from service.webhooks.states import DeliveryState


class UtcDateTime(TypeDecorator[datetime]):
    """A time zone survives SQLite, which has none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _kind(kind: type[StrEnum]) -> Enum:
    """Stored as its value in a plain string column, so that a new member needs no migration; loaded as the member."""
    return Enum(
        kind, native_enum=False, length=20, values_callable=lambda members: [member.value for member in members]
    )


def _search_text(context: DefaultExecutionContext) -> str:
    """Of a job's row that is written."""
    row = context.get_current_parameters()  # type: ignore[no-untyped-call] # SQLAlchemy's own
    return search_text(row["id"], row["spec"], row.get("owner"))


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's declaration
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        JobState: _kind(JobState),
        AttemptState: _kind(AttemptState),
        DeploymentState: _kind(DeploymentState),
        ExportState: _kind(ExportState),
        PromotionState: _kind(PromotionState),
        Role: _kind(Role),
        DeliveryState: _kind(DeliveryState),
        EvaluationState: _kind(EvaluationState),
        FlagAction: _kind(FlagAction),
    }


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    user_id: Mapped[str | None] = mapped_column(String(40))  # none: a key from before there were users
    role: Mapped[Role] = mapped_column(server_default=Role.MEMBER)
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str | None] = mapped_column(String(20))  # by which people tell keys apart; none: as above
    digest: Mapped[str] = mapped_column(String(64), unique=True)  # SHA-256 of the key; the key itself is kept nowhere
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to the minute (service.keys.uses)
    revoked_at: Mapped[datetime | None]


class File(Base):
    """An uploaded file. The row is written after the bytes are whole and in place, and goes after they have gone."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200), index=True)
    filename: Mapped[str] = mapped_column(String(500))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]  # no one sees it from then on
    derived_from: Mapped[dict[str, Any] | None]  # service.pairs.derivation.Derivation; none: it was uploaded
    call_id: Mapped[str | None] = mapped_column(String(40), index=True, unique=True)  # service.jobs.calls


class Upload(Base):
    """A file that comes in parts: pending until it has a file, was cancelled, or its time is over."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_expires_at", "expires_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200), index=True)
    filename: Mapped[str] = mapped_column(String(500))
    bytes: Mapped[int] = mapped_column(BigInteger)  # as announced
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    cancelled_at: Mapped[datetime | None]
    file_id: Mapped[str | None] = mapped_column(String(40))  # what it became; that file may have been deleted since
    completed_as: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the request that completed it
    call_id: Mapped[str | None] = mapped_column(String(40), index=True, unique=True)  # service.jobs.calls


class UploadPart(Base):
    """Bytes of an upload. Equal bytes are one part, whether they are sent again or occur in the file again."""

    __tablename__ = "upload_parts"
    __table_args__ = (UniqueConstraint("upload_id", "sha256"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


NOT_ARCHIVED = text("model_archived_at IS NULL AND model_deleted_at IS NULL AND finished_at IS NOT NULL")


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint(
            "project_id", "idempotency_key", name="uq_jobs_owner_idempotency_key"
        ),  # named before projects
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_project_id_state_id", "project_id", "state", "id"),
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_not_archived", "state", "finished_at", sqlite_where=NOT_ARCHIVED, postgresql_where=NOT_ARCHIVED),
        Index("ix_jobs_searched", "project_id", "id", "search", "deleted_at", "state"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_sha256: Mapped[str] = mapped_column(String(64))
    spec: Mapped[dict[str, Any]]
    state: Mapped[JobState]
    stage: Mapped[str | None] = mapped_column(String(20))
    # {stage: {done, total, unit, started_at, updated_at, from_done, from_at}}; `from_*`: where the present rate began
    progress: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    error: Mapped[dict[str, Any] | None]  # service.spec.reports.Failure
    num_attempts: Mapped[int] = mapped_column(Integer, default=0)
    num_failures: Mapped[int] = mapped_column(Integer, default=0)  # of ours, in a row, without a step ahead
    not_before: Mapped[datetime | None]  # when it is queued: no attempt is made until then
    gpu_seconds: Mapped[float] = mapped_column(Float, default=0.0)  # of the attempts that have ended
    cloned_from: Mapped[str | None] = mapped_column(String(40))  # a job, which may be deleted since
    last_event: Mapped[int] = mapped_column(Integer, default=0)  # highest event number given out
    last_metric: Mapped[int] = mapped_column(Integer, default=0)  # highest metric number given out
    # By retention (service.retention); the numbers above go on all the same
    events_removed_to: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    metrics_removed_to: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    run_removed_at: Mapped[datetime | None]  # its working files; counts if it is after `finished_at`
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    pause_requested_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id"), index=True)
    sweep_index: Mapped[int | None]
    # of jobs whose reference pass does the same work: one goes first, the others wait until it has scored
    reference_group: Mapped[str | None] = mapped_column(String(80), index=True)
    model_deleted_at: Mapped[datetime | None]  # what it published is not to be used any more
    model_purged_at: Mapped[datetime | None]  # its files are gone too
    model_archived_at: Mapped[datetime | None]  # the object store has it whole (service.archive)
    model_archive: Mapped[str | None] = mapped_column(String(1000))  # the folder's address there
    gpus: Mapped[float | None] = mapped_column(Float)  # it holds at most at one time; none: from before quotas
    model_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of what it published, once that was measured
    deleted_at: Mapped[datetime | None]  # no one sees it from then on; the row stays as a record
    purged_at: Mapped[datetime | None]  # its files, events and metrics are gone
    queued_at: Mapped[datetime | None]  # when it was queued again, by a retry or a resume; it waits since then
    priority: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # the spec's, for the queue's query
    owner: Mapped[str | None] = mapped_column(String(200))  # who made it, as service.keys.service.Caller.name
    search: Mapped[str | None] = mapped_column(String(500), default=_search_text)  # service.jobs.search
    loss_line: Mapped[dict[str, Any] | None]  # service.jobs.loss_line
    size: Mapped[dict[str, Any] | None]  # service.queue.size.JobSize: what admission knew; null before there was one


class JobLabel(Base):
    """One of a job's `metadata`, to find it by; those of deleted jobs are gone."""

    __tablename__ = "job_labels"
    __table_args__ = (Index("ix_job_labels_label", "project_id", "name", "value", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))
    project_id: Mapped[str] = mapped_column(String(200))


class Sweep(Base):
    """Jobs that were made together. `changes`: what each of them changes, by its `sweep_index`."""

    __tablename__ = "sweeps"
    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key"),
        Index("ix_sweeps_project_id_id", "project_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(String(200))
    changes: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    created_at: Mapped[datetime]


class Attempt(Base):
    """One try at a job. Its ID is also Ray's submission ID."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job_id", "number"),
        Index("ix_attempts_state", "state"),
        Index("ix_attempts_finished_at", "finished_at"),
    )

    id: Mapped[str] = mapped_column(String(50), primary_key=True)  # {job_id}-{number}
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    state: Mapped[AttemptState]
    last_seq: Mapped[int] = mapped_column(Integer, default=0)  # reports taken so far
    failure: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    scored_at: Mapped[datetime | None]  # when every pair that it needs was in the reference store
    heartbeat_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Event(Base):
    """Append-only, numbered 1, 2, 3... per job without gaps."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int | None]  # the attempt's number, for what an attempt reported
    type: Mapped[str] = mapped_column(String(60))
    stage: Mapped[str | None] = mapped_column(String(20))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Metric(Base):
    """Values of one step, numbered per job in order of arrival; for a repeated step the highest number counts."""

    __tablename__ = "metrics"
    __table_args__ = (Index("ix_metrics_job_step_number", "job_id", "split", "step", "number"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    split: Mapped[str] = mapped_column(String(20))
    step: Mapped[int]
    values: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Deployment(Base):
    """A job's base and aligned model on Serve: present while wanted, or until Serve has let go."""

    __tablename__ = "deployments"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)  # the job's; {job_id}@{step} for a checkpoint
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    step: Mapped[int | None]  # of the checkpoint that is served in place of what the job published
    state: Mapped[DeploymentState]
    message: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(Integer, default=1)  # each new wish raises it: what was seen before is old
    places: Mapped[dict[str, Any] | None]  # {side: service.serving.placement.Place}; null until they are known
    used_at: Mapped[datetime | None]  # by a request, to some seconds (service.deployments.uses)
    deploying_since: Mapped[datetime]  # the last time that it was wanted or woken
    start_s: Mapped[float | None] = mapped_column(Float)  # how long it took then to be ready; null: it never was
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class TrackerRun(Base):
    """How far a job's metrics have been told to an experiment tracker (service.controller.track)."""

    __tablename__ = "tracker_runs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    tracker: Mapped[str] = mapped_column(String(20), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(200))  # the tracker's name for it
    last_metric: Mapped[int] = mapped_column(Integer)  # the number of the last one told
    closed: Mapped[bool]  # the tracker knows that the job has ended


class Call(Base):
    """A client's wish for a job, file or upload, sent without an Idempotency-Key (service.jobs.calls). Its ID is the
    job's key, or the `call_id` of what else it made."""

    __tablename__ = "calls"
    __table_args__ = (
        UniqueConstraint("project_id", "body_sha256", "number", name="uq_calls_owner_body_sha256_number"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    body_sha256: Mapped[str] = mapped_column(String(64))  # of the caller's key and the request's body, byte for byte
    number: Mapped[int]
    first_heard_by_retry: Mapped[bool]  # and no first request has come for it since
    created_at: Mapped[datetime]
    heard_at: Mapped[datetime]  # when the newest of its requests came


class Lease(Base):
    """Who alone may do something for now (service.leases)."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    holder: Mapped[str] = mapped_column(String(200))  # for people
    term: Mapped[int]  # a new one each time the lease is taken: what a holder before cannot know
    expires_at: Mapped[datetime]  # by the database's clock


class ClusterView(Base):
    """What a controller last saw of the cluster's nodes: one row, on which controllers that plan at once also queue."""

    __tablename__ = "cluster_views"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    nodes: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # service.queue.capacity.Node
    observed_at: Mapped[datetime | None]  # null: never
    tried_at: Mapped[datetime]
    trouble: Mapped[str | None] = mapped_column(Text)  # why the last try saw nothing


class Forecast(Base):
    """When a job was expected to start and to finish, as it was told; scored against what happened."""

    __tablename__ = "forecasts"
    __table_args__ = (Index("ix_forecasts_made_at", "made_at"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    moment: Mapped[str] = mapped_column(String(20), primary_key=True)  # queued | started
    made_at: Mapped[datetime]
    start_low: Mapped[datetime | None]
    start_high: Mapped[datetime | None]
    finish_low: Mapped[datetime | None]
    finish_high: Mapped[datetime | None]
