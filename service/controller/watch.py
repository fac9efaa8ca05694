"""Notices attempts that ended without a word, and attempts that never spoke or fell silent.

Tuned by `settings.start_timeout_s` and `settings.heartbeat_timeout_s`. Silence counts only while the API can be
reached: an attempt keeps what it has to say while the API is away, and must not be punished for that.
"""

import logging
import time
from dataclasses import dataclass, field

import httpx

from service.clock import utc_now
from service.cluster.jobs import RayJob, RayJobStatus
from service.controller.context import Controller, Since
from service.db.tables import Attempt
from service.errors import InvalidState
from service.jobs.attempts import fail_attempt
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.states import AttemptState, JobState
from service.settings import Settings
from service.spec.reports import Failure, Fault
from service.telemetry import context

log = logging.getLogger(__name__)

OUTCOME_GRACE_S = 3.0  # the last word and the driver's end arrive over different ways
_HEARTBEATS_MISSED = 5  # from here on the API's health is looked at
_PROBE_TIMEOUT_S = 2.0


@dataclass
class Watch:
    """The reconciler and what it remembers between passes."""

    gone: Since = field(default_factory=Since)  # no process of the driver is left
    silent: Since = field(default_factory=Since)  # no report, although the API is there

    async def reconcile(self, controller: Controller) -> None:
        async with controller.database.reading() as session:
            jobs = await JobRepository(session).in_states(JobState.STARTING, JobState.RUNNING)
            attempts = [a for a in await AttemptRepository(session).active() if a.job_id in {job.id for job in jobs}]
        for since in (self.gone, self.silent):
            since.keep_only({attempt.id for attempt in attempts})
        for attempt in attempts:
            with context.bound(job_id=attempt.job_id, attempt_id=attempt.id):
                ray_job = await controller.jobs.get(attempt.id)
                failure = self._interrupted(attempt, ray_job) or await self._timed_out(controller, attempt, ray_job)
                if failure is not None:
                    await _fail(controller, attempt, failure)

    def _interrupted(self, attempt: Attempt, ray_job: RayJob | None) -> Failure | None:
        if ray_job is None and attempt.state is AttemptState.PENDING:  # not submitted yet
            return None
        if ray_job is not None and not ray_job.status.terminal:
            self.gone.forget(attempt.id)
            return None
        if self.gone.lasting_s(attempt.id, time.monotonic()) < OUTCOME_GRACE_S:
            return None
        if ray_job is None:
            message = "The cluster does not know the attempt any more: it has been started anew."
        else:
            message = f"The attempt ended without a result. Ray says: {_first_line(ray_job.message)}"
        return Failure(code="interrupted", message=message, fault=Fault.SYSTEM)

    async def _timed_out(self, controller: Controller, attempt: Attempt, ray_job: RayJob | None) -> Failure | None:
        settings = controller.settings
        silence_s = (utc_now() - (attempt.heartbeat_at or attempt.created_at)).total_seconds()
        if silence_s < _HEARTBEATS_MISSED * settings.heartbeat_every_s or not await _api_is_there(settings):
            self.silent.forget(attempt.id)
            return None
        silence_s = self.silent.lasting_s(attempt.id, time.monotonic())
        if attempt.state is AttemptState.PENDING:
            if silence_s < settings.start_timeout_s:
                return None
            message = f"The attempt did not start within {settings.start_timeout_s:g} s: {_obstacle(settings, ray_job)}"
            return Failure(code="start_timeout", message=message, fault=Fault.SYSTEM)
        if silence_s < settings.heartbeat_timeout_s:
            return None
        message = f"The attempt was silent for more than {settings.heartbeat_timeout_s:g} s and has been stopped."
        return Failure(code="heartbeat_lost", message=message, fault=Fault.SYSTEM)


async def _fail(controller: Controller, attempt: Attempt, failure: Failure) -> None:
    """Stop what may be left of the attempt, then let the retry rule decide about its job."""
    await controller.jobs.stop(attempt.id)
    tail = await controller.jobs.log_tail(attempt.id)
    log.warning("attempt %s: %s", attempt.id, failure.message)
    try:
        async with controller.database.transaction() as session:
            fresh = await AttemptRepository(session).get(attempt.id)
            told = failure.model_copy(update={"log_tail": tail})
            await fail_attempt(session, fresh, told, controller.settings)
    except InvalidState:  # its last word came in after all
        return


async def _api_is_there(settings: Settings) -> bool:
    async with httpx.AsyncClient(timeout=_PROBE_TIMEOUT_S, trust_env=False) as client:
        try:
            return (await client.get(f"{settings.callback_url}/healthz")).is_success
        except httpx.TransportError:
            return False


def _obstacle(settings: Settings, ray_job: RayJob | None) -> str:
    if ray_job is None:
        return "Ray did not take it."
    if ray_job.status is RayJobStatus.PENDING:
        return "Ray has no node for its driver. A node labelled pool=control or pool=shared must be there."
    return f"its driver runs but has not reached the API. Nodes must be able to reach {settings.callback_url}."


def _first_line(message: str) -> str:
    """Ray appends the driver's log to its message; the log is told apart."""
    return (message.strip().splitlines() or ["nothing"])[0].partition(", last available logs")[0][:500]
