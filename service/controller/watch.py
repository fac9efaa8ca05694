"""Notices attempts that ended without a word, and attempts that never spoke or fell silent.

Tuned by `settings.start_timeout_s` and `settings.heartbeat_timeout_s`. Silence counts only while the API can be
reached: an attempt keeps what it has to say while the API is away, and must not be punished for that.

Whoever has just spoken is there. So with many attempts Ray is not asked about all of them in every pass, which would
take longer the more there are.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import httpx

from service.clock import utc_now
from service.cluster.jobs import RayJob, RayJobStatus
from service.controller.context import Controller, Since
from service.controller.together import together
from service.db.tables import Attempt
from service.errors import InvalidState
from service.jobs.attempts import fail_attempt
from service.jobs.repository import AttemptRepository
from service.jobs.states import AttemptState, JobState
from service.settings import Settings
from service.spec.reports import Failure, Fault
from service.telemetry import context

log = logging.getLogger(__name__)

OUTCOME_GRACE_S = 3.0  # the last word and the driver's end arrive over different ways
_HEARTBEATS_MISSED = 5  # from here on the API's health is looked at
_PROBE_TIMEOUT_S = 2.0
_JUST_SPOKEN_HEARTBEATS = 2
_JUST_SPOKEN = 100  # of those that have, looked at in one pass: in turns


@dataclass
class Watch:
    """The reconciler and what it remembers between passes."""

    gone: Since = field(default_factory=Since)  # no process of the driver is left
    silent: Since = field(default_factory=Since)  # no report, although the API is there
    # Transactions of many at one time would leave no gap in which the controller's lease can be renewed.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    last: str = ""  # of those that had just spoken, the last one that was looked at

    async def reconcile(self, controller: Controller) -> None:
        async with controller.database.reading() as session:
            attempts = await AttemptRepository(session).active(JobState.STARTING, JobState.RUNNING)
        for since in (self.gone, self.silent):
            since.keep_only({attempt.id for attempt in attempts})
        api = _Api(controller.settings)

        async def look(attempt: Attempt) -> None:
            with context.bound(job_id=attempt.job_id, attempt_id=attempt.id):
                ray_job = await controller.jobs.get(attempt.id)
                failure = self._interrupted(attempt, ray_job)
                failure = failure or await self._timed_out(controller.settings, api, attempt, ray_job)
                if failure is not None:
                    await self._fail(controller, attempt, failure)

        await together(look, self._due(attempts, controller.settings))

    def _due(self, attempts: Sequence[Attempt], settings: Settings) -> list[Attempt]:
        """All but those that have just spoken and whose turn it is not."""
        then = utc_now() - timedelta(seconds=_JUST_SPOKEN_HEARTBEATS * settings.heartbeat_every_s)
        spoke = {
            one.id for one in attempts if one.heartbeat_at and one.heartbeat_at > then and not self.gone.has(one.id)
        }
        for id in spoke:
            self.silent.forget(id)
        turns = sorted(spoke, key=lambda id: (id <= self.last, id))[:_JUST_SPOKEN]
        self.last = turns[-1] if turns else ""
        left_out = spoke.difference(turns)
        return [attempt for attempt in attempts if attempt.id not in left_out]

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

    async def _timed_out(
        self, settings: Settings, api: "_Api", attempt: Attempt, ray_job: RayJob | None
    ) -> Failure | None:
        silence_s = (utc_now() - (attempt.heartbeat_at or attempt.created_at)).total_seconds()
        if silence_s < _HEARTBEATS_MISSED * settings.heartbeat_every_s or not await api.is_there():
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

    async def _fail(self, controller: Controller, attempt: Attempt, failure: Failure) -> None:
        """Stop what may be left of the attempt, then let the retry rule decide about its job."""
        await controller.jobs.stop(attempt.id)
        tail = await controller.jobs.log_tail(attempt.id)
        log.warning("attempt %s: %s", attempt.id, failure.message)
        try:
            async with self.turn, controller.database.transaction() as session:
                fresh = await AttemptRepository(session).get(attempt.id)
                told = failure.model_copy(update={"log_tail": tail})
                await fail_attempt(session, fresh, told, controller.settings)
        except InvalidState:  # its last word came in after all
            return


class _Api:
    """Asked once a pass, however many attempts are silent: when the API has been away, all of them are."""

    def __init__(self, settings: Settings) -> None:
        self._url = f"{settings.callback_url}/healthz"
        self._asking = asyncio.Lock()
        self._answer: bool | None = None

    async def is_there(self) -> bool:
        async with self._asking:
            if self._answer is None:
                self._answer = await self._ask()
            return self._answer

    async def _ask(self) -> bool:
        async with httpx.AsyncClient(timeout=_PROBE_TIMEOUT_S, trust_env=False) as client:
            try:
                return (await client.get(self._url)).is_success
            except httpx.TransportError:
                return False


def _obstacle(settings: Settings, ray_job: RayJob | None) -> str:
    if ray_job is None:
        return "Ray did not take it."
    if ray_job.status is RayJobStatus.PENDING:
        return (
            "Ray has no node for its driver. One labelled pool=control or pool=shared must be there, with 1 GiB of "
            "memory that no other driver or export has set aside."
        )
    return f"its driver runs but has not reached the API. Nodes must be able to reach {settings.callback_url}."


def _first_line(message: str) -> str:
    """Ray appends the driver's log to its message; the log is told apart."""
    return (message.strip().splitlines() or ["nothing"])[0].partition(", last available logs")[0][:500]
