"""What clients see of the queue: why a job waits, until when, and what a job would meet."""

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.queue.plan import WaitCode
from service.spec.pools import Pool

if TYPE_CHECKING:  # the client reads answers by these models, and needs no database
    from service.db.tables import Job
    from service.queue.view import QueueNow


class QueueModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PoolNeedView(QueueModel):
    pool: Pool
    labels: list[str] = Field(description="Values of a node's label `pool` that would do.")
    gpus: float = Field(description="Of all of the job's workers in the pool.")
    cpus: float
    missing_gpus: float = Field(description="How many of them are held by others, or are not there.")
    missing_cpus: float


class HolderView(QueueModel):
    """A job on the cluster that holds some of what is needed."""

    job_id: str | None = Field(description="Null for a job of another project.")
    gpus: float
    cpus: float
    until_low: datetime | None = Field(description="Between this and `until_high` it is expected to end.")
    until_high: datetime | None


class WaitingView(QueueModel):
    """Why a queued job has not been started: the very answer of the function that decides."""

    code: WaitCode
    message: str
    position: int | None = Field(description="1 is next; null while it is not known.")
    needs: list[PoolNeedView]
    holders: list[HolderView]
    ahead: str | None = Field(description="The job that is let go first, if it is one of yours.")


class EtaView(QueueModel):
    """Expected between `low` and `high`; null where no job like it, or like those before it, has succeeded yet."""

    start_low: datetime | None = Field(description="Null too for a job that has started.")
    start_high: datetime | None
    finish_low: datetime | None
    finish_high: datetime | None


class Place(QueueModel):
    """Of one job."""

    waiting: WaitingView | None
    eta: EtaView | None

    @classmethod
    def of(cls, job: "Job", queue: "QueueNow | None") -> "Place":
        if queue is None:
            return cls(waiting=None, eta=None)
        return cls.model_validate({"waiting": queue.waiting(job), "eta": queue.eta(job)})


class CheckView(QueueModel):
    name: str = Field(examples=["memory"])
    ok: bool
    message: str = Field(description="What was found, or what to do.")
    code: str | None = Field(description="Of the error that submitting the job would meet.")
    field: str | None


class CostView(QueueModel):
    """Of all workers together; null where no job like it has succeeded yet."""

    gpus: float = Field(description="That the job holds at most.")
    run_s_low: float | None = Field(description="Seconds on the cluster.")
    run_s_high: float | None
    gpu_hours_low: float | None
    gpu_hours_high: float | None


class DryRunView(QueueModel):
    ok: bool = Field(description="Whether the job would be accepted.")
    checks: list[CheckView]
    cost: CostView
    eta: EtaView | None
    waiting: WaitingView | None = Field(description="What it would wait for; null if it would not be accepted.")


class LabelView(QueueModel):
    """The living nodes with one value of the label `pool`."""

    label: str
    nodes: int
    gpus: float
    cpus: float


class ScoreView(QueueModel):
    """Forecasts against what happened. The middle and the width are of the interval; null without a forecast."""

    moment: Literal["queued", "started"] = Field(description="When it was foretold.")
    event: Literal["start", "finish"] = Field(description="What was foretold.")
    count: int
    coverage: float | None = Field(description="Share of the times that fell into their interval.")
    median_error_s: float | None = Field(description="From the middle of the interval.")
    median_width_s: float | None


class PoolHolderView(QueueModel):
    """A job on the cluster that holds some of the pool: what it asked for, since Ray does not tell what is free."""

    job_id: str | None = Field(description="Null for a job of another project.")
    name: str | None
    gpus: float
    cpus: float
    until_low: datetime | None = Field(description="Between this and `until_high` it is expected to end.")
    until_high: datetime | None


class PoolView(QueueModel):
    """What there is for one kind of work. A node with a label of several pools counts in each of them."""

    pool: Pool
    labels: list[str] = Field(description="Of the nodes that are there for it.")
    nodes: int
    gpus: float
    cpus: float
    accelerators: dict[str, float] = Field(description="GPUs by Ray's name of their type, where that is known.")
    holders: list[PoolHolderView] = Field(description="Of `policy` and `reference`, largest first.")


class PoolList(QueueModel):
    data: list[PoolView]
    observed_at: datetime | None = Field(description="When the nodes were seen; null if never.")
    trouble: str | None = Field(description="Why the last look at the cluster saw nothing.")


class QueueView(QueueModel):
    queued: int = Field(description="Jobs of all projects that wait.")
    on_cluster: int
    max_running_jobs: int
    labels: list[LabelView]
    observed_at: datetime | None = Field(description="When `labels` were seen; null if never.")
    trouble: str | None = Field(description="Why the last look at the cluster saw nothing.")
    forecasts: list[ScoreView] = Field(description="Of the last 30 days.")
