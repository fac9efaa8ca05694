"""How good the forecasts are: what was foretold of jobs, kept when it was first known, against what happened.

Each job is foretold at most twice: when it waits (`queued`: start and finish) and when it runs (`started`: finish).
The finish of a job that failed or was cancelled was nothing to foretell, so only succeeded jobs count there; a start
counts whatever came of the job.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.tables import Forecast, Job
from service.jobs.states import JobState
from service.queue.forecast import Eta
from service.queue.view import QueueNow

WINDOW = timedelta(days=30)  # of what is told to people and to Prometheus
SCORED = 1000  # forecasts that a score is made from, at most: the newest

QUEUED = "queued"
STARTED = "started"


@dataclass(frozen=True)
class Score:
    """Of intervals [low, high] against what happened. coverage: share of the times that fell into theirs; the others
    are of the distance from the middle of the interval and of its width, in seconds. None without a forecast."""

    moment: str  # when it was foretold: queued | started
    event: str  # what was foretold: start | finish
    count: int
    coverage: float | None
    median_error_s: float | None
    median_width_s: float | None


async def record(session: AsyncSession, queue: QueueNow) -> None:
    """Keep what is foretold for the first time. Two controllers that do so at once meet in the primary key."""
    told = {
        (id, QUEUED if queue.snapshot.jobs[id].state is JobState.QUEUED else STARTED): eta
        for id, eta in queue.etas.items()
        if _is_whole(eta, queue.snapshot.jobs[id].state)
    }
    known = select(Forecast.job_id, Forecast.moment).where(Forecast.job_id.in_({id for id, _ in told}))
    kept = {(id, moment) for id, moment in await session.execute(known)}
    session.add_all(
        Forecast(
            job_id=id,
            moment=moment,
            made_at=queue.snapshot.now,
            start_low=eta.start_low,
            start_high=eta.start_high,
            finish_low=eta.finish_low,
            finish_high=eta.finish_high,
        )
        for (id, moment), eta in told.items()
        if (id, moment) not in kept
    )
    await session.flush()


async def scores(session: AsyncSession, since: datetime) -> list[Score]:
    """Of the forecasts made since then whose outcome is known."""
    newest = (
        select(Forecast, Job.state, Job.started_at, Job.finished_at)
        .join(Job, Job.id == Forecast.job_id)
        .where(Forecast.made_at > since, Job.started_at.is_not(None))
        .order_by(Forecast.made_at.desc())
        .limit(SCORED)
    )
    rows = [(forecast, state, begun, ended) for forecast, state, begun, ended in await session.execute(newest)]
    starts = [(one.start_low, one.start_high, begun) for one, _, begun, _ in rows if one.moment == QUEUED]
    finishes = {
        moment: [
            (one.finish_low, one.finish_high, ended)
            for one, state, _, ended in rows
            if one.moment == moment and state is JobState.SUCCEEDED
        ]
        for moment in (QUEUED, STARTED)
    }
    return [
        score(QUEUED, "start", starts),
        score(QUEUED, "finish", finishes[QUEUED]),
        score(STARTED, "finish", finishes[STARTED]),
    ]


def score(
    moment: str, event: str, foretold: Iterable[tuple[datetime | None, datetime | None, datetime | None]]
) -> Score:
    """foretold: low, high and what happened; what has an unknown among the three is left out."""
    whole = [(low, high, at) for low, high, at in foretold if low and high and at]
    if not whole:
        return Score(moment, event, 0, None, None, None)
    return Score(
        moment,
        event,
        len(whole),
        sum(low <= at <= high for low, high, at in whole) / len(whole),
        median(_seconds(abs(at - (low + (high - low) / 2)) for low, high, at in whole)),
        median(_seconds(high - low for low, high, _ in whole)),
    )


def _is_whole(eta: Eta, state: JobState) -> bool:
    return None not in (eta.finish_low, eta.finish_high) and state in (JobState.QUEUED, JobState.RUNNING)


def _seconds(spans: Iterable[timedelta]) -> Sequence[float]:
    return [span.total_seconds() for span in spans]
