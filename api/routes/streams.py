"""A job's events and metrics: as pages, or as a stream that replays and then follows."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from api import sse
from api.deps import DatabaseDep, FeedsDep, LeavingDep, ProjectDep, SettingsDep
from api.json_answers import as_json
from api.log_frames import Channel
from api.problems import problems
from api.views import Curve, CurvePointView, EventPage, EventView, MetricPage, MetricView
from service.errors import InvalidRequest, NotFound, RateLimited, TooManyStreams
from service.jobs.curve import curve
from service.jobs.log import LogRepository, Split
from service.jobs.repository import JobRepository

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

After = Annotated[int, Query(ge=0, le=sse.MAX_NUMBER, description="Only what has a higher number.")]
# Read by `sse.resume_after`, which says what is wrong with a malformed one; declared for the documentation.
LastEventId = Annotated[str | None, Header(description="For a stream: the `id` of the last frame received.")]
_RESPONSES = sse.DOCUMENTED | problems(NotFound, InvalidRequest, RateLimited, TooManyStreams)


@router.get("/events", response_model=EventPage, responses=_RESPONSES)
async def job_events(
    request: Request,
    job_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    feeds: FeedsDep,
    leaving: LeavingDep,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    last_event_id: LastEventId = None,  # noqa: ARG001 - see LastEventId
) -> EventPage | StreamingResponse:
    """What happened, in order. With `Accept: text/event-stream`: all of it from `after` or `Last-Event-ID` on, and then
    what comes: `event` frames, a `removed` frame in place of those that retention has removed, `job` frames whenever
    the job changes, `end` when there is nothing more to come, or `reconnect` when the stream has lived long enough
    or its server is about to end."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        if not sse.wanted(request):
            events = await LogRepository(session).events(job_id, after=after, limit=limit + 1)
            views = [EventView.model_validate(event) for event in events[:limit]]
            return EventPage(data=views, next_after=_next_after(events, limit), removed_to=job.events_removed_to)
    following = feeds.following(Channel("events"), job, sse.resume_after(request, after))
    return sse.FollowingStream(sse.follow(following, lifetime_s=settings.stream_lifetime_s, leaving=leaving))


@router.get("/metrics", response_model=MetricPage, responses=_RESPONSES)
async def job_metrics(
    request: Request,
    job_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    settings: SettingsDep,
    feeds: FeedsDep,
    leaving: LeavingDep,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
    split: Split | None = None,
    last_event_id: LastEventId = None,  # noqa: ARG001 - see LastEventId
) -> MetricPage | StreamingResponse:
    """Values of each step. Pages leave out what a resumed attempt has replaced; a stream (`Accept: text/event-stream`)
    sends everything, as `metric` frames, and otherwise what that of the events sends."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        if not sse.wanted(request):
            metrics = await LogRepository(session).metrics(job_id, after=after, limit=limit + 1, split=split)
            views = [MetricView.model_validate(metric) for metric in metrics[:limit]]
            return MetricPage(data=views, next_after=_next_after(metrics, limit), removed_to=job.metrics_removed_to)
    following = feeds.following(Channel("metrics", split), job, sse.resume_after(request, after))
    return sse.FollowingStream(sse.follow(following, lifetime_s=settings.stream_lifetime_s, leaving=leaving))


@router.get("/metrics/curve", response_model=Curve, responses=problems(NotFound, InvalidRequest))
async def job_curve(
    job_id: str,
    project_id: ProjectDep,
    database: DatabaseDep,
    points: Annotated[int, Query(ge=1, le=2000, description="At most so many.")] = 500,
    split: Split = "train",
) -> Response:
    """All steps of the job in few points: a job with more steps than `points` gets means, lows and highs of buckets of
    neighbouring steps, the same number of steps in each."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        through = job.last_metric  # read before the points, so that none is missed
        found = await curve(session, job.id, split, points)
    return as_json(Curve(through=through, data=[CurvePointView.model_validate(point) for point in found]))


def _next_after(rows: Sequence[Any], limit: int) -> int | None:
    return rows[limit - 1].number if len(rows) > limit else None
