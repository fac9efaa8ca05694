"""Queries on jobs, attempts and events. Nothing commits here; the caller's transaction does."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, bindparam, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlalchemy.orm.attributes import set_committed_value

from service.clock import utc_now
from service.db.inserts import Row, insert_all, table_of
from service.db.tables import Attempt, Event, Job, JobLabel
from service.errors import InvalidRequest, NotFound
from service.ids import is_id
from service.jobs.search import search_text, words
from service.jobs.states import LIVE, AttemptState, JobState
from service.spec import Stage
from service.spec.secrets import redact, redacted
from service.telemetry import observe
from service.webhooks.outbox import enqueue

ON_CLUSTER = (JobState.STARTING, JobState.RUNNING, JobState.PAUSING, JobState.CANCELLING)
ACTIVE_ATTEMPTS = tuple(state for state in AttemptState if not state.terminal)

# Written without the session's bookkeeping, which took most of a submission's time.
_JOBS, _LABELS, _EVENTS = table_of(Job), table_of(JobLabel), table_of(Event)
# Made once: that takes as long as a short query.
_BY_KEY = select(Job).where(Job.project_id == bindparam("project_id"), Job.idempotency_key == bindparam("key"))
_BY_ID = select(Job).where(Job.id == bindparam("id"))
_OF_PROJECT = _BY_ID.where(Job.project_id == bindparam("project_id"), Job.deleted_at.is_(None))
_NEW = {
    "state": JobState.QUEUED,
    "priority": 0,
    "num_attempts": 0,
    "num_failures": 0,
    "gpu_seconds": 0.0,
    "last_event": 1,  # `_first_event`
    "last_metric": 0,
    "events_removed_to": 0,
    "metrics_removed_to": 0,
}


def _first_event(job_id: str, now: datetime) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "number": 1,
        "attempt": None,
        "type": "job.queued",
        "stage": None,
        "message": "The job was accepted and waits for the controller.",
        "data": {},
        "created_at": now,
    }


class JobRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, job_id: str, *, lock: bool = False) -> Job:
        """The job whoever owns it; NotFound if there is none.

        lock: other writers of this job wait until this transaction ends, and what is read is the newest.
        """
        return await self._one(job_id, _BY_ID, lock)

    async def get_of_attempt(self, attempt_id: str) -> Job:
        """The job that the attempt is of, locked as `get` does; NotFound if there is no such attempt."""
        theirs = select(Job).join(Attempt, Attempt.job_id == Job.id).where(Attempt.id == attempt_id)
        locked = theirs.with_for_update(of=Job).execution_options(populate_existing=True)
        job = (await self._session.scalars(locked)).one_or_none()
        if job is None:
            raise NotFound(f"There is no attempt '{attempt_id}'.")
        return job

    async def get_in_project(self, job_id: str, project_id: str, *, lock: bool = False) -> Job:
        """The job if it is the project's; NotFound otherwise, with no hint which of the two."""
        return await self._one(job_id, _OF_PROJECT, lock, project_id=project_id)

    async def get_many(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Those that there are."""
        return (await self._session.scalars(select(Job).where(Job.id.in_(job_ids)))).all()

    async def find_by_key(self, project_id: str, idempotency_key: str) -> Job | None:
        found = await self._session.scalars(_BY_KEY, {"project_id": project_id, "key": idempotency_key})
        return found.one_or_none()

    async def add(self, *, beside: Sequence[Row] = (), may_be_told: bool = True, **columns: Any) -> Job:
        """A new job of these columns, queued, with its labels and the event that says so. The object is not the
        session's.

        beside: written with it. may_be_told: False if the project is known to have no webhooks.
        Raises IntegrityError if its key was used.
        """
        now = utc_now()
        row: dict[str, Any] = {**_NEW, "progress": {}, "created_at": now, **columns}
        row["search"] = search_text(row["id"], row["spec"], row.get("owner"))
        place = {"job_id": row["id"], "project_id": row["project_id"]}
        labels = [place | {"name": name, "value": value} for name, value in row["spec"].get("metadata", {}).items()]
        event = _first_event(row["id"], now)
        await insert_all(
            self._session, [(_JOBS, row), *((_LABELS, label) for label in labels), (_EVENTS, event), *beside]
        )
        if may_be_told:
            await enqueue(self._session, row["project_id"], [Event(**event)])
        observe.events(self._session, [event["type"]])
        return Job(**row)

    async def page(
        self,
        project_id: str | None,
        *,
        limit: int,
        cursor: str | None = None,
        states: Collection[JobState] = (),
        search: str | None = None,
        owner: str | None = None,
        sweep_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[list[Job], str | None]:
        """At most `limit` jobs, newest first, from after `cursor`; and the cursor of the next page, None at the end.

        project_id: None is all projects. states: any of these; empty is all. search: words that all occur in the job's
        text (service.jobs.search).
        metadata: only jobs with all of these labels; with an empty one, only jobs without any.
        """
        query = select(Job).where(Job.deleted_at.is_(None))
        if project_id is not None:
            query = query.where(Job.project_id == project_id)
        if cursor is not None:
            if not is_id("job", cursor):
                raise InvalidRequest(
                    "'cursor' is not one that this list gave out: use `next_cursor` of the last page as it is.",
                    field="cursor",
                )
            query = query.where(Job.id < cursor)
        if states:
            # With a search as an expression: SQLite would take the index of states, which has no text
            state = Job.state if search is None else func.coalesce(Job.state, JobState.QUEUED)
            query = query.where(state.in_(states))
        if search is not None:
            query = query.where(*(self._in_text(word) for word in words(search)))
        if owner is not None:
            query = query.where(Job.owner == owner)
        if sweep_id is not None:
            query = query.where(Job.sweep_id == sweep_id)
        newest = Job.id.desc()
        if metadata is not None and not metadata:
            query = query.where(~exists().where(JobLabel.job_id == Job.id))
        for name, value in (metadata or {}).items():
            label = aliased(JobLabel)
            query = query.join(label, (label.job_id == Job.id) & (label.name == name) & (label.value == value))
            if project_id is not None:
                query = query.where(label.project_id == project_id)
            if cursor is not None:
                query = query.where(label.job_id < cursor)
            newest = label.job_id.desc()  # the order of the index that finds them
        query = query.order_by(newest).limit(limit + 1)
        if search is not None:
            # An index has the text, in the order of the list, and what most searches look at beside it: chosen by
            # themselves, the IDs cost no look at a row of another job
            query = select(Job).where(Job.id.in_(query.with_only_columns(Job.id))).order_by(Job.id.desc())
        jobs = list((await self._session.scalars(query)).all())
        return jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None

    def _in_text(self, word: str) -> ColumnElement[bool]:
        """Both are in lower case. PostgreSQL looks for a text three times as fast as for a pattern."""
        if self._session.get_bind().dialect.name == "postgresql":
            return func.strpos(Job.search, word) > 0
        return Job.search.contains(word, autoescape=True)

    async def live_on_file(self, file_id: str) -> Job | None:
        """A job that has not ended and trains or is measured on the uploaded file, if there is one."""
        reads = or_(*(Job.spec["data"][name].as_string() == file_id for name in ("train", "validation")))
        found = select(Job).where(Job.state.in_(LIVE), reads)
        return (await self._session.scalars(found.order_by(Job.id).limit(1))).one_or_none()

    async def oldest_queued(self, limit: int) -> Sequence[Job]:
        """Those whose next attempt may begin now."""
        due = or_(Job.not_before.is_(None), Job.not_before <= utc_now())
        queued = select(Job).where(Job.state == JobState.QUEUED, due, ~waits_for_scores())
        return (await self._session.scalars(queued.order_by(Job.id).limit(limit))).all()

    async def waiting_for_scores(self, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that another one of their reference group goes before."""
        if not job_ids:
            return set()
        waiting = select(Job.id).where(Job.id.in_(job_ids), waits_for_scores())
        return set((await self._session.scalars(waiting)).all())

    async def count_on_cluster(self) -> int:
        """Jobs that may hold something on the cluster."""
        count = select(func.count()).select_from(Job).where(Job.state.in_(ON_CLUSTER))
        return (await self._session.scalars(count)).one()

    async def count_queued(self, project_id: str) -> int:
        queued = select(func.count()).select_from(Job).where(Job.project_id == project_id, Job.state == JobState.QUEUED)
        return (await self._session.scalars(queued)).one()

    async def in_states(self, *states: JobState) -> Sequence[Job]:
        """Oldest first."""
        return (await self._session.scalars(select(Job).where(Job.state.in_(states)).order_by(Job.id))).all()

    async def running_on_budget(self) -> list[tuple[Job, Attempt | None]]:
        """Running jobs with a limit of GPU-hours, each with its attempt that has not ended, oldest first."""
        budget = Job.spec["resources"]["max_gpu_hours"].as_float()
        running = select(Job, Attempt).where(Job.state == JobState.RUNNING, budget.is_not(None))
        on = (Attempt.job_id == Job.id) & Attempt.state.in_(ACTIVE_ATTEMPTS)
        found = await self._session.execute(running.outerjoin(Attempt, on).order_by(Job.id))
        return [(job, attempt) for job, attempt in found]

    async def _one(self, job_id: str, query: Select[Job], lock: bool, **parameters: str) -> Job:
        if lock:
            query = query.with_for_update().execution_options(populate_existing=True)
        found = await self._session.scalars(query, {"id": job_id, **parameters}) if is_id("job", job_id) else None
        job = found.one_or_none() if found else None
        if job is None:
            raise NotFound("There is no such job among yours. GET /v1/jobs lists them.")
        return job


class AttemptRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def create(self, job: Job) -> Attempt:
        """The job's next attempt, pending. Two that are made at once meet in the constraint (job_id, number)."""
        number = await allocate(self._session, job, "num_attempts", 1)
        attempt = Attempt(
            id=f"{job.id}-{number}",
            job_id=job.id,
            number=number,
            state=AttemptState.PENDING,
            last_seq=0,
            created_at=utc_now(),
        )
        self._session.add(attempt)
        await self._session.flush()
        return attempt

    async def get(self, attempt_id: str) -> Attempt:
        attempt = await self._session.get(Attempt, attempt_id, populate_existing=True)
        if attempt is None:
            raise NotFound(f"There is no attempt '{attempt_id}'.")
        return attempt

    async def current(self, job: Job) -> Attempt | None:
        """The newest attempt, ended or not; the only one whose reports are taken."""
        newest = select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number.desc()).limit(1)
        return (await self._session.scalars(newest)).one_or_none()

    async def numbered(self, job: Job, number: int) -> Attempt | None:
        found = select(Attempt).where(Attempt.job_id == job.id, Attempt.number == number)
        return (await self._session.scalars(found)).one_or_none()

    async def running(self, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs whose attempt's driver has reported and has not ended."""
        running = select(Attempt.job_id).where(Attempt.job_id.in_(job_ids), Attempt.state == AttemptState.RUNNING)
        return set((await self._session.scalars(running)).all())

    async def active(self, *states: JobState) -> Sequence[Attempt]:
        """Attempts that have not ended, oldest first. states: of jobs in any of these; none is all."""
        active = select(Attempt).where(Attempt.state.in_(ACTIVE_ATTEMPTS)).order_by(Attempt.created_at, Attempt.id)
        if states:
            active = active.join(Job, Job.id == Attempt.job_id).where(Job.state.in_(states))
        return (await self._session.scalars(active)).all()


def waits_for_scores() -> ColumnElement[bool]:
    """Whether a job of the same reference group goes first: the earliest that can, until one of them has scored."""
    first, scorer = aliased(Job), aliased(Job)
    goes_first = exists().where(
        first.reference_group == Job.reference_group,
        first.sweep_index < Job.sweep_index,
        first.state.in_(LIVE - {JobState.PAUSING, JobState.PAUSED, JobState.CANCELLING}),
    )
    scored = exists().where(
        scorer.reference_group == Job.reference_group, Attempt.job_id == scorer.id, Attempt.scored_at.is_not(None)
    )
    return Job.reference_group.is_not(None) & goes_first & ~scored


async def append_event(
    session: AsyncSession,
    job: Job,
    type: str,
    message: str,
    *,
    stage: Stage | None = None,
    data: dict[str, Any] | None = None,
    attempt: int | None = None,
) -> int:
    """Append to the job's event log and return the event's number.

    The job's row stays locked from here to the end of the transaction, so numbers become visible in order and a
    reader that asks for "after n" never misses one.
    """
    number = await allocate(session, job, "last_event", 1)
    event = Event(
        job_id=job.id,
        number=number,
        attempt=attempt,
        type=type,
        stage=stage,
        message=redact(message),
        data=redacted(data or {}),
        created_at=utc_now(),
    )
    await add_events(session, job, [event])
    return number


async def add_events(session: AsyncSession, job: Job, events: Sequence[Event]) -> None:
    """Write events whose numbers `allocate` has given out, and their deliveries to the project's webhooks."""
    session.add_all(events)
    await session.flush()
    await enqueue(session, job.project_id, events)
    observe.events(session, [event.type for event in events])


async def allocate(
    session: AsyncSession, job: Job, counter: Literal["last_event", "last_metric", "num_attempts"], count: int
) -> int:
    """Take `count` numbers from `last_event`, `last_metric` or `num_attempts`; returns the last of them."""
    column = getattr(Job, counter)
    taken = update(Job).where(Job.id == job.id).values({counter: column + count}).returning(column)
    last = (await session.execute(taken, execution_options={"synchronize_session": False})).scalar_one()
    set_committed_value(job, counter, last)
    return int(last)
