"""The queue as a whole: what the cluster has, what waits in which order, and how good the forecasts are."""

from fastapi import APIRouter

from api.deps import DatabaseDep, ProjectDep, QueueDep, SettingsDep
from api.queue_views import LabelView, PoolList, PoolView, QueueView, ScoreView
from api.views import JobView, QueuedJobs
from service.clock import utc_now
from service.db.tables import ClusterView
from service.jobs.repository import JobRepository
from service.queue import observation
from service.queue.pools import pool_states
from service.queue.score import WINDOW, scores

router = APIRouter(tags=["queue"])


@router.get("/queue/jobs")
async def list_queued_jobs(project_id: ProjectDep, database: DatabaseDep, queue: QueueDep) -> QueuedJobs:
    """Your next jobs, in the order in which they are let go; each says why it waits. At most 50."""
    seen = await queue.now()
    snapshot = seen.snapshot
    mine = [job.id for job in snapshot.queued if job.project_id == project_id]
    views = [JobView.of(snapshot.jobs[id], None, seen) for id in mine]
    views.sort(key=lambda job: (job.waiting.position or 0) if job.waiting else 0)  # without a place: it starts now
    async with database.reading() as session:
        waiting = await JobRepository(session).count_queued(project_id)
    return QueuedJobs(data=views, more=max(0, waiting - len(views)))


@router.get("/pools")
async def list_pools(project_id: ProjectDep, database: DatabaseDep, queue: QueueDep) -> PoolList:
    """What the cluster has for each kind of work, and which jobs hold it."""
    seen = await queue.now()
    async with database.reading() as session:
        view = await observation.read(session)
    states = pool_states(observation.nodes_of(view), seen.snapshot, seen.etas, project_id)
    return PoolList(
        data=[PoolView.model_validate(state) for state in states],
        observed_at=view.observed_at if view is not None else None,
        trouble=_trouble(view),
    )


@router.get("/queue")
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
        trouble=_trouble(view),
        forecasts=[ScoreView.model_validate(one) for one in scored],
    )


def _trouble(view: ClusterView | None) -> str | None:
    return view.trouble if view is not None else "No controller has looked at the cluster yet."
