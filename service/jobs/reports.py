"""Taking an attempt's reports: each number once, in order, from the newest attempt only, a batch in one transaction."""

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.tables import Attempt, Event, Job, Metric
from service.errors import AttemptSuperseded, InvalidRequest, InvalidState, ReportGap
from service.jobs import attempts, loss_line, progress
from service.jobs.repository import AttemptRepository, JobRepository, add_events
from service.jobs.states import AttemptState, JobState
from service.settings import Settings
from service.spec import AlignmentJob, PoolRequest, SourceKind, Stage, Storage
from service.spec.reports import (
    AttemptBrief,
    EventReport,
    Failure,
    Fault,
    MetricsReport,
    OutcomeReport,
    ProgressReport,
    Report,
    ReportAck,
    ReportBatch,
)
from service.spec.secrets import redacted
from service.spec.sources import source_kind
from service.telemetry import observe
from service.text import storable

_ADD_METRIC = insert(Metric.__table__)  # type: ignore[arg-type] # it is a Table


async def brief(session: AsyncSession, attempt_id: str, settings: Settings) -> AttemptBrief:
    """What the attempt is to do. Raises AttemptSuperseded once it has ended or another one has its place, and
    InvalidState if this version takes the job's options no more."""
    attempt = await AttemptRepository(session).get(attempt_id)
    job = await JobRepository(session).get(attempt.job_id)
    if attempt.number != job.num_attempts or attempt.state.terminal:
        raise _superseded(attempt, job)
    try:
        spec = AlignmentJob.model_validate(job.spec)
    except ValidationError as error:
        raise InvalidState(attempts.unreadable(job).detail) from error
    storage = Storage(settings.storage_root.absolute())
    return AttemptBrief(
        attempt_id=attempt.id,
        attempt_number=attempt.number,
        job_id=job.id,
        spec=_with_gpus(spec) if settings.serving_device == "gpu" else spec,
        storage=str(storage.root),
        reference_store=str(_reference_store(storage, job, settings).relative_to(storage.root)),
        train_file=_file(spec.data.train, storage),
        validation_file=_file(spec.data.validation, storage) if spec.data.validation else None,
        data_roots=[str(root.absolute()) for root in settings.data_roots],
        allow_private_urls=[str(network) for network in settings.allow_private_urls],
        allowed_urls=settings.allowed_urls,
        max_download_bytes=settings.max_download_bytes,
        download_timeout_s=settings.download_timeout_s,
        heartbeat_every_s=settings.heartbeat_every_s,
    )


def _with_gpus(spec: AlignmentJob) -> AlignmentJob:
    """With a GPU for each worker of which the job does not say how many: a pool that is yet to be scaled up has none
    that its driver could go by."""

    def settled(request: PoolRequest) -> PoolRequest:
        given = request.gpus_per_worker is not None
        return request if given else request.model_copy(update={"gpus_per_worker": 1.0})

    both = {"policy": settled(spec.resources.policy), "reference": settled(spec.resources.reference)}
    return spec.model_copy(update={"resources": spec.resources.model_copy(update=both)})


def _reference_store(storage: Storage, job: Job, settings: Settings) -> Path:
    if settings.shares_reference_store:
        return storage.reference_store
    return storage.reference_store_of(job.project_id)


def _file(source: str, storage: Storage) -> str | None:
    match source_kind(source):
        case SourceKind.FILE:
            return str((storage.files / source).relative_to(storage.root))
        case SourceKind.PATH:
            return source
        case SourceKind.URL | SourceKind.HUB:
            return None


async def take_batch(session: AsyncSession, attempt_id: str, batch: ReportBatch, settings: Settings) -> ReportAck:
    """Store what is new in the batch. Sending a batch again changes nothing and gets the same answer.

    Raises ReportGap if reports before the batch are missing, AttemptSuperseded if an attempt that has ended or was
    replaced says something new, InvalidRequest if an outcome is not the last report or comes without its failure.
    """
    job = await JobRepository(session).get_of_attempt(attempt_id)
    attempt = await AttemptRepository(session).get(attempt_id)  # after the lock, which may have been waited for
    if batch.first_seq > attempt.last_seq + 1:
        raise ReportGap(
            f"The batch starts at {batch.first_seq}, but {attempt.last_seq} is the last report stored: "
            f"send from {attempt.last_seq + 1} on.",
            expected_seq=attempt.last_seq + 1,
        )
    new = batch.reports[attempt.last_seq + 1 - batch.first_seq :]
    if attempt.number != job.num_attempts or attempt.state.terminal:
        # Its last batch sent again after a lost answer, or a heartbeat that crossed with its success, is no offence.
        if not new and (batch.reports or attempt.state is AttemptState.SUCCEEDED):
            return ReportAck(last_seq=attempt.last_seq, cancel=False)
        raise _superseded(attempt, job)
    outcome = _outcome(new)

    if attempt.state is AttemptState.PENDING:
        await attempts.note_first_word(session, job, attempt)
    now = utc_now()  # after that event's, whose number comes before those of the reports
    events = [one for one in new if isinstance(one, EventReport)]
    metrics = [one for one in new if isinstance(one, MetricsReport)]
    # The row is ours until the commit, so its numbers need no statement each; it is written once, being large.
    numbers = {"last_event": job.last_event + len(events), "last_metric": job.last_metric + len(metrics)}
    told_of_job = numbers | _advanced(job, new, now) | {"loss_line": _loss_line(job, metrics)}
    changed = {name: value for name, value in told_of_job.items() if value != getattr(job, name)}
    if changed:
        await guarded_update(session, job, changed)
    await _append_events(session, job, attempt, events, now)
    await _append_metrics(session, job, attempt, metrics, now)
    taken: dict[str, Any] = {"last_seq": attempt.last_seq + len(new), "heartbeat_at": now}
    if any(isinstance(one, EventReport) and one.type == "reference.scored" for one in new):
        taken["scored_at"] = now
    await guarded_update(session, attempt, taken)
    observe.reports(session, attempt, new, batch.waited_s)
    if outcome is not None:
        await _finish(session, job, attempt, outcome, settings)
    return ReportAck(
        last_seq=attempt.last_seq, cancel=job.state is JobState.CANCELLING, pause=job.state is JobState.PAUSING
    )


def _superseded(attempt: Attempt, job: Job) -> AttemptSuperseded:
    return AttemptSuperseded(
        f"Attempt {attempt.number} is {attempt.state}, the job is {job.state} and its newest attempt is "
        f"{job.num_attempts}: stop."
    )


def _outcome(reports: list[Report]) -> OutcomeReport | None:
    for place, report in enumerate(reports):
        if isinstance(report, OutcomeReport):
            if place != len(reports) - 1:
                raise InvalidRequest("An outcome is the last report of an attempt.", field=f"reports.{place}")
            if (report.failure is None) == (report.result == "failed"):
                raise InvalidRequest("`failure` is set exactly when the result is `failed`.", field=f"reports.{place}")
            return report
    return None


async def _append_events(
    session: AsyncSession, job: Job, attempt: Attempt, reports: list[EventReport], now: datetime
) -> None:
    """With the numbers up to `job.last_event`."""
    if not reports:
        return
    events = [
        Event(
            job_id=job.id,
            number=number,
            attempt=attempt.number,
            type=report.type,
            stage=report.stage,
            message=redacted(storable(report.message)),
            data=redacted(storable(report.data)),
            created_at=now,
        )
        for number, report in enumerate(reports, start=job.last_event - len(reports) + 1)
    ]
    await add_events(session, job, events)


async def _append_metrics(
    session: AsyncSession, job: Job, attempt: Attempt, reports: list[MetricsReport], now: datetime
) -> None:
    """With the numbers up to `job.last_metric`."""
    if not reports:
        return
    rows = [
        {
            "job_id": job.id,
            "number": number,
            "attempt": attempt.number,
            "split": report.split,
            "step": report.step,
            "values": storable(report.values),
            "created_at": now,
        }
        for number, report in enumerate(reports, start=job.last_metric - len(reports) + 1)
    ]
    await session.execute(_ADD_METRIC, rows)


def _advanced(job: Job, reports: list[Report], now: datetime) -> dict[str, Any]:
    stage, so_far = job.stage, job.progress
    for report in reports:
        if isinstance(report, ProgressReport):
            so_far = progress.advance(so_far, report, now)
        if isinstance(report, ProgressReport | EventReport) and report.stage is not None:
            stage = progress.furthest(stage, Stage(report.stage))
    return {"stage": stage, "progress": storable(so_far)}


def _loss_line(job: Job, reports: list[MetricsReport]) -> dict[str, Any] | None:
    trained = [one for one in reports if one.split == "train"]
    return loss_line.extended(job.loss_line, [(one.step, storable(one.values).get("loss")) for one in trained])


async def _finish(
    session: AsyncSession, job: Job, attempt: Attempt, outcome: OutcomeReport, settings: Settings
) -> None:
    if outcome.result == "succeeded":
        await attempts.succeed_attempt(session, attempt)
    elif outcome.failure is not None:
        failure = Failure.model_validate(storable(outcome.failure.model_dump(mode="json")))
        await attempts.fail_attempt(session, attempt, failure, settings)
    elif job.state is JobState.CANCELLING or (job.state is JobState.PAUSING and outcome.result == "paused"):
        await attempts.leave_attempt(session, job, attempt)
    else:
        stopped = Failure(
            code="interrupted",
            message=f"The attempt says that it was {outcome.result}, although nobody had asked for that.",
            fault=Fault.SYSTEM,
        )
        await attempts.fail_attempt(session, attempt, stopped, settings)
