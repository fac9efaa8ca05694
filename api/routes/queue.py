"""The queue as a whole: what the cluster has, how many jobs wait, and how good the forecasts are."""

from datetime import timedelta

from fastapi import APIRouter

from api.deps import DatabaseDep, ProjectDep, QueueDep, SettingsDep
from api.queue_views import LabelView, QueueView, ScoreView
from service.clock import utc_now
from service.queue import observation
from service.queue.score import scores

router = APIRouter(prefix="/queue", tags=["queue"])

WINDOW = timedelta(days=30)


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
