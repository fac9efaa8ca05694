"""What the streams send: a job's events and metrics as frames, read for many jobs at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from api.places import Places
from api.sse import frame
from api.views import EventView, JobView, MetricView
from service.db.tables import Job
from service.deployments import service as deployments
from service.jobs.log import LogRepository, Split
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState

BATCH = 500  # frames of one reading, of all its jobs together


@dataclass(frozen=True)
class Channel:
    """Which of a job's logs: its events with the job itself, or its metrics, of one split or of both."""

    log: Literal["events", "metrics"]
    split: Split | None = None

    def last_number(self, job: Job) -> int:
        """Of the newest line of the log."""
        return job.last_event if self.log == "events" else job.last_metric

    def removed_to(self, job: Job) -> int:
        """Number of the last line that retention has removed."""
        return job.events_removed_to if self.log == "events" else job.metrics_removed_to


CHANNELS = (Channel("events"), Channel("metrics"), Channel("metrics", "train"), Channel("metrics", "held_out"))


@dataclass(frozen=True)
class Reading:
    """What there is in one job's log after the number that was asked about.

    head: up to where the log has been read. oldest_at: when the first of the frames was written. job: the frame of the
    job itself, for events. more: read again at once. ended: nothing can come any more.
    """

    head: int
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    oldest_at: datetime | None = None
    job: bytes = b""
    more: bool = False
    ended: bool = False


async def read(session: AsyncSession, channel: Channel, after: Mapping[str, int], places: Places) -> dict[str, Reading]:
    """after: by job, the number after which to read. A job that is not there any more has ended."""
    # In this order: whatever is in the jobs' state is then in the logs too, at any isolation level.
    jobs = {job.id: job for job in await JobRepository(session).get_many(list(after))}
    frames: dict[str, list[tuple[int, bytes]]] = {job_id: [] for job_id in after}
    job_frames: dict[str, bytes] = {}
    oldest_at: dict[str, datetime] = {}
    log = LogRepository(session)
    if channel.log == "events":
        deployed = await deployments.find_many(session, list(jobs))
        for job in jobs.values():
            place = places.of(job)
            view = JobView.of(job, deployed.get(job.id))
            view = view.model_copy(update={"waiting": place.waiting, "eta": place.eta})
            job_frames[job.id] = frame("job", view.model_dump_json())
        settled = {
            job_id
            for job_id in jobs
            if job_id not in deployed or deployed[job_id].state is not DeploymentState.DEPLOYING
        }
        for event in await log.events_after(after, limit=BATCH):
            text = EventView.model_validate(event).model_dump_json()
            oldest_at.setdefault(event.job_id, event.created_at)
            frames[event.job_id].append((event.number, frame("event", text, event.number)))
    else:
        settled = set(jobs)
        for metric in await log.metrics_after(after, split=channel.split, limit=BATCH):
            text = MetricView.model_validate(metric).model_dump_json()
            oldest_at.setdefault(metric.job_id, metric.created_at)
            frames[metric.job_id].append((metric.number, frame("metric", text, metric.number)))
    cut_short = sum(map(len, frames.values())) == BATCH
    readings: dict[str, Reading] = {}
    for job_id, number in after.items():
        found = frames[job_id]
        head = found[-1][0] if found else number
        if job_id not in jobs:
            readings[job_id] = Reading(head, found, ended=True)
            continue
        removed_to = channel.removed_to(jobs[job_id])
        if channel.log == "events" and found:  # what was removed since the job was read shows as a gap
            removed_to = max(removed_to, found[0][0] - 1)
        if number < removed_to:
            found.insert(0, (removed_to, _removed(removed_to)))
            head = max(head, removed_to)
        last = channel.last_number(jobs[job_id])
        more = cut_short and head < last
        readings[job_id] = Reading(
            head=head if more else max(head, last),
            frames=found,
            oldest_at=oldest_at.get(job_id),
            job=job_frames.get(job_id, b""),
            more=more,
            ended=jobs[job_id].state.terminal and job_id in settled and not more,
        )
    return readings


def _removed(to: int) -> bytes:
    """To a reader whose `Last-Event-ID` is lower. Its number goes on from there, so it is said once."""
    return frame("removed", f'{{"to":{to},"reason":"retention"}}', to)
