"""All that a report or a card of a job says, read once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.evaluation_tables import Evaluation
from service.db.session import Database
from service.db.tables import Event, File, Job, Metric
from service.errors import DataReportMissing
from service.evaluations.figures import Results
from service.evaluations.states import EvaluationState
from service.ids import is_id
from service.jobs.curve import CurvePoint, curve
from service.jobs.log import LogRepository
from service.jobs.repository import JobRepository
from service.jobs.service import data_report
from service.spec.data_report import DataReport
from service.spec.secrets import shown_spec

CURVES = ("loss", "rewards/margins", "rewards/accuracies", "kl", "grad_norm")
_POINTS = 300
_MAX_ALARMS = 100
_MAX_LINEAGE = 20
_MAX_EVALUATIONS = 20


@dataclass(frozen=True)
class Ancestor:
    """source: as the job below names it. job: its row, if it is one of the project's; it may be deleted."""

    source: str
    job: Job | None


@dataclass(frozen=True)
class Facts:
    job: Job
    spec: dict[str, Any]  # for people's eyes
    data: DataReport | None
    curve: Sequence[CurvePoint]
    held_out: Metric | None
    alarms: Sequence[Event]
    lineage: Sequence[Ancestor]
    data_sha256: str | None  # of the bytes that it was trained on
    started_from: str  # a model of the Hub with the commit that it was, once that is known
    evaluations: Sequence[Results] = field(default_factory=list)


async def of_job(database: Database, project_id: str, job_id: str) -> Facts:
    """Raises NotFound."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(job_id, project_id)
        log = LogRepository(session)
        try:
            data = await data_report(session, project_id, job_id)
        except DataReportMissing:
            data = None
        alarms = select(Event).where(Event.job_id == job.id, Event.type == "health.alarm").order_by(Event.number)
        shown = select(Evaluation).where(
            Evaluation.project_id == project_id,
            Evaluation.job_id == job.id,
            Evaluation.state.in_([EvaluationState.VOTING, EvaluationState.COMPLETED]),
        )
        evaluations = (await session.scalars(shown.order_by(Evaluation.id.desc()).limit(_MAX_EVALUATIONS))).all()
        facts = Facts(
            job=job,
            spec=shown_spec(job.spec),
            data=data,
            curve=await curve(session, job.id, "train", _POINTS),
            held_out=await log.newest_metric(job.id, "held_out"),
            alarms=(await session.scalars(alarms.limit(_MAX_ALARMS))).all(),
            lineage=await _lineage(session, job),
            data_sha256=await _data_sha256(session, job),
            started_from=await _started_from(session, job),
        )
    from service.evaluations.results import results  # numpy, for those who ask for a report

    found = [await results(database, one) for one in evaluations]
    return Facts(**{**vars(facts), "evaluations": found})


async def _lineage(session: AsyncSession, job: Job) -> list[Ancestor]:
    """What the model was trained from, and what that was trained from, to the first that is no job's."""
    found: list[Ancestor] = []
    at: Job | None = job
    while at is not None and len(found) < _MAX_LINEAGE:
        source = at.spec["model"]["source"]
        parent_id = source.removeprefix("job:").partition("@")[0] if source.startswith("job:") else ""
        parents = select(Job).where(Job.id == parent_id, Job.project_id == job.project_id)
        at = (await session.scalars(parents)).one_or_none() if is_id("job", parent_id) else None
        found.append(Ancestor(source, at))
    return found


async def _started_from(session: AsyncSession, job: Job) -> str:
    published = await LogRepository(session).newest_event(job.id, "model.published")
    told = published.data.get("started_from") if published is not None else None
    return str(told or job.spec["model"]["source"])


async def _data_sha256(session: AsyncSession, job: Job) -> str | None:
    """As the attempt that published the model has told it, or of the upload that the job names."""
    published = await LogRepository(session).newest_event(job.id, "model.published")
    if published is not None and isinstance(digest := published.data.get("data_sha256"), str):
        return digest
    uploads = select(File.sha256).where(File.id == job.spec["data"]["train"], File.project_id == job.project_id)
    return (await session.scalars(uploads)).one_or_none()
