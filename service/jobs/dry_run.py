"""What would become of a job if it were submitted now: every check, the cost and the time, with nothing written."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from service.clock import utc_now
from service.db.session import Database
from service.errors import InvalidRequest, ServiceError
from service.ids import new_id
from service.jobs import admission
from service.jobs.continuation import with_adapter_options
from service.jobs.gpu_hours import check_budget
from service.jobs.model_admission import ModelShapes, check_models
from service.projects import usage
from service.projects.quota import gpus_held, never_fits
from service.queue.forecast import Eta
from service.queue.plan import Queued
from service.queue.size import JobSize
from service.queue.view import QueueNow
from service.queue.words import Waiting
from service.settings import Settings
from service.spec import AlignmentJob

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """`message`: what was found, or what to do. `code` and `field`: of the error that submitting would meet."""

    name: str
    ok: bool
    message: str
    code: str | None = None
    field: str | None = None


@dataclass(frozen=True)
class Cost:
    """Of all workers together, for as long as the job is expected to run; None where no job like it has succeeded."""

    gpus: float
    run_s_low: float | None
    run_s_high: float | None
    gpu_hours_low: float | None
    gpu_hours_high: float | None


@dataclass(frozen=True)
class Report:
    """`ok`: whether the job would be accepted. `waiting`: None if it would not be accepted."""

    ok: bool
    checks: list[Check]
    cost: Cost
    eta: Eta | None
    waiting: Waiting | None


async def dry_run(
    database: Database, settings: Settings, project_id: str, spec: AlignmentJob, queue: QueueNow
) -> Report:
    """What fails a check is in the report, and is not raised. queue: as it was last seen."""
    checks: list[Check] = []
    async with database.reading() as session:
        known = await admission.read_known(session, project_id, spec)
    models = await _try(checks, "model", check_models(database, settings, project_id, spec)) or ModelShapes(None, None)
    size = await _try(checks, "data", admission.check_data(settings, spec, known)) or JobSize()
    if spec.continues_adapter and all(check.ok for check in checks):
        spec = await _try(checks, "adapter", with_adapter_options(database, settings, project_id, spec)) or spec
    findings = await admission.check_cluster(database, settings, spec, models, known)
    for name, finding in zip(("pools", "memory"), findings, strict=True):
        checks.append(_check(name, finding.error or finding.message))
    gpus = gpus_held(spec, unset=settings.unset_gpus)
    async with database.reading() as session:
        shortage = never_fits(await usage.quota_of(session, project_id), await usage.usage(session, project_id), gpus)
    checks.append(_check("quota", shortage.error() if shortage else "The project's quota allows the job."))
    if spec.resources.max_gpu_hours is not None:
        try:
            check_budget(spec, gpus)
        except InvalidRequest as error:
            checks.append(_check("budget", error))
        else:
            checks.append(_check("budget", "The budget of GPU-hours can be counted."))
    ok = all(check.ok for check in checks)

    parameters = models.policy.parameters if models.policy is not None else None
    job_id = new_id("job")
    queued = Queued.of(job_id, project_id, spec, utc_now(), gpus)
    size = JobSize(parameters, size.rows, size.bytes)
    seen, expected = queue.with_job(queued, spec, size)
    held = queued.needs.demand(queue.snapshot.capacity).gpus
    hours = held / 3600
    cost = Cost(
        held,
        expected.low if expected else None,
        expected.high if expected else None,
        expected.low * hours if expected else None,
        expected.high * hours if expected else None,
    )
    return Report(
        ok,
        checks,
        cost,
        seen.etas.get(job_id) if ok else None,
        seen.waiting_of(job_id, project_id) if ok else None,
    )


async def _try(checks: list[Check], name: str, check: Awaitable[T]) -> T | None:
    """The check's result, None if it refuses the job; noted either way."""
    try:
        found = await check
    except ServiceError as error:
        checks.append(_check("serving" if error.extra.get("field") == "serve" else name, error))
        return None
    checks.append(_check(name, _PASSED[name]))
    return found


_PASSED = {
    "model": "The models are there, fit for training, and the result can be served if it is to be.",
    "data": "The data can be read, or is read by the attempt.",
    "adapter": "The adapter can be trained on.",
}


def _check(name: str, found: ServiceError | str) -> Check:
    if isinstance(found, str):
        return Check(name, True, found)
    return Check(name, False, found.detail, found.code, found.extra.get("field"))
