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
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from service.jobs.states import AttemptState, DeploymentState, JobState


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
    }


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(String(64), unique=True)  # SHA-256 of the key; the key itself is kept nowhere
    created_at: Mapped[datetime]
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


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint(
            "project_id", "idempotency_key", name="uq_jobs_owner_idempotency_key"
        ),  # named before projects
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_state_id", "state", "id"),
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
    last_event: Mapped[int] = mapped_column(Integer, default=0)  # highest event number given out
    last_metric: Mapped[int] = mapped_column(Integer, default=0)  # highest metric number given out
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    model_deleted_at: Mapped[datetime | None]  # what it published is not to be used any more


class Attempt(Base):
    """One try at a job. Its ID is also Ray's submission ID."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "number"), Index("ix_attempts_state", "state"))

    id: Mapped[str] = mapped_column(String(50), primary_key=True)  # {job_id}-{number}
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    state: Mapped[AttemptState]
    last_seq: Mapped[int] = mapped_column(Integer, default=0)  # reports taken so far
    failure: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
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
    __table_args__ = (Index("ix_metrics_job_step", "job_id", "split", "step"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    split: Mapped[str] = mapped_column(String(20))
    step: Mapped[int]
    values: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Deployment(Base):
    """A succeeded job's base and aligned model on Serve: present while wanted, or until Serve has let go."""

    __tablename__ = "deployments"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    state: Mapped[DeploymentState]
    message: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(Integer, default=1)  # a new POST after a failure raises it
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
    """A client's wish for a job, sent without an Idempotency-Key (service.jobs.calls). Its ID is the job's key."""

    __tablename__ = "calls"
    __table_args__ = (
        UniqueConstraint("project_id", "body_sha256", "number", name="uq_calls_owner_body_sha256_number"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(200))
    body_sha256: Mapped[str] = mapped_column(String(64))  # of the request's body, byte for byte
    number: Mapped[int]
    first_heard_by_retry: Mapped[bool]  # and no first request has come for it since
    created_at: Mapped[datetime]
    heard_at: Mapped[datetime]  # when the newest of its requests came
