"""The queue as a whole: what the cluster has, how many jobs wait, and how good the forecasts are."""

from datetime import datetime, timedelta
from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from api.deps import DatabaseDep, ProjectDep, QueueDep, SettingsDep
from api.queue_views import QueueModel
from service.clock import utc_now
from service.queue import observation
from service.queue.score import scores

router = APIRouter(prefix="/queue", tags=["queue"])

WINDOW = timedelta(days=30)


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


class QueueView(QueueModel):
    queued: int = Field(description="Jobs of all projects that wait.")
    on_cluster: int
    max_running_jobs: int
    labels: list[LabelView]
    observed_at: datetime | None = Field(description="When `labels` were seen; null if never.")
    trouble: str | None = Field(description="Why the last look at the cluster saw nothing.")
    forecasts: list[ScoreView] = Field(description="Of the last 30 days.")


@router.get("")
async def get_queue(_project: ProjectDep, database: DatabaseDep, settings: SettingsDep, queue: QueueDep) -> QueueView:
    """What the queue decides by. Why one job waits is told by the job itself."""
    seen = await queue.now()
    async with database.reading() as session:
        view = await observation.read(session)
        scored = await scores(session, utc_now() - WINDOW)
    nodes = observation.nodes_of(view)
    snapshot = seen.snapshot
    return QueueView(
        queued=len(snapshot.queued) + snapshot.beyond,
        on_cluster=len(snapshot.on_cluster),
        max_running_jobs=settings.max_running_jobs,
        labels=[
            LabelView(
                label=label,
                nodes=len(same := [node for node in nodes if node.label == label]),
                gpus=sum(node.gpus for node in same),
                cpus=sum(node.cpus for node in same),
            )
            for label in sorted({node.label for node in nodes})
        ],
        observed_at=view.observed_at if view is not None else None,
        trouble=view.trouble if view is not None else "No controller has looked at the cluster yet.",
        forecasts=[ScoreView.model_validate(one) for one in scored],
    )
