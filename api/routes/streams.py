"""A job's events and metrics: as pages, or as a stream that replays and then follows."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

from api import sse
from api.deps import DatabaseDep, ProjectDep, SettingsDep
from api.problems import problems
from api.views import EventPage, EventView, JobView, MetricPage, MetricView
from service.db.session import Database
from service.deployments import service as deployments
from service.errors import InvalidRequest, NotFound, TooManyStreams
from service.jobs.log import LogRepository, Split
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

_BATCH = 500  # frames of one poll

After = Annotated[int, Query(ge=0, le=sse.MAX_NUMBER, description="Only what has a higher number.")]
# Read by `sse.resume_after`, which says what is wrong with a malformed one; declared for the documentation.
LastEventId = Annotated[str | None, Header(description="For a stream: the `id` of the last frame received.")]
_RESPONSES = sse.DOCUMENTED | problems(NotFound, InvalidRequest, TooManyStreams)


@router.get("/events", response_model=EventPage, responses=_RESPONSES)
async def job_events(
    request: Request,
    job_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    last_event_id: LastEventId = None,  # noqa: ARG001 - see LastEventId
) -> EventPage | StreamingResponse:
    """What happened, in order. With `Accept: text/event-stream`: all of it from `after` or `Last-Event-ID` on, and then
    what comes: `event` frames, `job` frames whenever the job changes, `end` when there is nothing more to come, or
    `reconnect` when the stream has lived long enough."""
    async with database.reading() as session:
        await JobRepository(session).get_in_project(job_id, project_id)
        if not sse.wanted(request):
            events = await LogRepository(session).events(job_id, after=after, limit=limit + 1)
            views = [EventView.model_validate(event) for event in events[:limit]]
            return EventPage(data=views, next_after=_next_after(events, limit))
    poll = _EventPoll(database, job_id, sse.resume_after(request, after))
    return sse.EventStream(sse.follow(poll.news, lifetime_s=settings.stream_lifetime_s))


@router.get("/metrics", response_model=MetricPage, responses=_RESPONSES)
async def job_metrics(
    request: Request,
    job_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
    split: Split | None = None,
    last_event_id: LastEventId = None,  # noqa: ARG001 - see LastEventId
) -> MetricPage | StreamingResponse:
    """Values of each step. Pages leave out what a resumed attempt has replaced; a stream (`Accept: text/event-stream`)
    sends everything, as `metric` frames, and ends like that of the events."""
    async with database.reading() as session:
        await JobRepository(session).get_in_project(job_id, project_id)
        if not sse.wanted(request):
            metrics = await LogRepository(session).metrics(
                job_id, after=after, limit=limit + 1, split=split, superseded=False
            )
            views = [MetricView.model_validate(metric) for metric in metrics[:limit]]
            return MetricPage(data=views, next_after=_next_after(metrics, limit))
    poll = _MetricPoll(database, job_id, sse.resume_after(request, after), split)
    return sse.EventStream(sse.follow(poll.news, lifetime_s=settings.stream_lifetime_s))


def _next_after(rows: Sequence[Any], limit: int) -> int | None:
    return rows[limit - 1].number if len(rows) > limit else None


class _EventPoll:
    def __init__(self, database: Database, job_id: str, after: int) -> None:
        self._database, self._job_id, self._after = database, job_id, after
        self._last_job = ""

    async def news(self) -> sse.News:
        async with self._database.reading() as session:
            # In this order: whatever is in the job's state is then in the events too, at any isolation level.
            job = await JobRepository(session).get(self._job_id)
            deployment = await deployments.find(session, job)
            events = await LogRepository(session).events(job.id, after=self._after, limit=_BATCH)
        frames = []
        view = JobView.of(job, deployment).model_dump_json()
        if view != self._last_job:
            frames.append(sse.frame("job", view))
            self._last_job = view
        for event in events:
            frames.append(sse.frame("event", EventView.model_validate(event).model_dump_json(), event.number))
            self._after = event.number
        more = len(events) == _BATCH
        settled = deployment is None or deployment.state is not DeploymentState.DEPLOYING
        return sse.News(frames, more=more, ended=job.state.terminal and settled and not more)


class _MetricPoll:
    def __init__(self, database: Database, job_id: str, after: int, split: Split | None) -> None:
        self._database, self._job_id, self._after, self._split = database, job_id, after, split

    async def news(self) -> sse.News:
        async with self._database.reading() as session:
            job = await JobRepository(session).get(self._job_id)
            metrics = await LogRepository(session).metrics(
                job.id, after=self._after, limit=_BATCH, split=self._split, superseded=True
            )
        frames = []
        for metric in metrics:
            frames.append(sse.frame("metric", MetricView.model_validate(metric).model_dump_json(), metric.number))
            self._after = metric.number
        more = len(metrics) == _BATCH
        return sse.News(frames, more=more, ended=job.state.terminal and not more)
