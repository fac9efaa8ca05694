"""Clients, attempts and the controller in any order, with crashes between any two writes: what must always hold.

The services, the reconcilers and the database are the real ones; Ray's Job Submission API is answered from memory.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import Phase
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select

from service.cluster.jobs import RayJobStatus
from service.controller import budget, start, stop, watch
from service.controller.context import Controller, make_controller
from service.db.migrate import upgrade
from service.db.session import Database
from service.db.tables import Attempt, Event, Job
from service.errors import AttemptSuperseded, IdempotencyConflict, InvalidState, NotFound
from service.jobs import deletion, lifecycle, reports, service
from service.jobs.repository import ON_CLUSTER
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import AlignmentJob
from service.spec.reports import EventReport, Failure, Fault, OutcomeReport, Report, ReportBatch
from tests.service.conftest import add_file, make_model
from tests.service.memory_ray import MemoryRay

CLEAN = {JobState.QUEUED, JobState.PAUSED, JobState.CANCELLED}  # nothing on the cluster, whatever came before
ENDS = {
    "succeeded": OutcomeReport(result="succeeded"),
    "lost": OutcomeReport(
        result="failed", failure=Failure(code="lost", message="A worker was lost.", fault=Fault.SYSTEM)
    ),
    "refused": OutcomeReport(
        result="failed", failure=Failure(code="rows", message="No row is usable.", fault=Fault.USER)
    ),
    "paused": OutcomeReport(result="paused"),
    "cancelled": OutcomeReport(result="cancelled"),
}


PICK = st.integers(0, 99)


class Crash(Exception):
    """The process is gone."""


@dataclass
class Voice:
    """An attempt's driver: what it has said, and how much of that it knows to be stored."""

    said: list[Report] = field(default_factory=list)
    acknowledged: int = 0
    cancel: bool = False
    pause: bool = False

    @property
    def ended(self) -> bool:
        return bool(self.said) and isinstance(self.said[-1], OutcomeReport)


class Plumbline(RuleBasedStateMachine):
    """Jobs are picked by a number, whatever it is: the rules stay simple, and old ones are visited too."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.settings = Settings(
            home=self.directory,
            secret="a secret of this test",
            max_attempts=2,
            max_running_jobs=2,
            cancel_grace_s=1e-6,
            pause_grace_s=1e-6,
            retry_backoff_s=1e-6,
        )
        shutil.copy(template(), self.directory / "plumbline.sqlite3")
        self.database = Database(self.settings.sqlalchemy_url)
        sqlalchemy_event.listen(self.database.engine.sync_engine, "connect", _never_sync)
        sqlalchemy_event.listen(self.database.engine.sync_engine, "commit", lambda _: self._maybe_crash())
        self.crash_in: int | None = None
        self.interject: tuple[int, Callable[[], Awaitable[Any]]] | None = None
        self.ray = MemoryRay(between=self._between)
        self.client = httpx.AsyncClient(transport=self.ray, base_url="http://ray")
        self.watch = watch.Watch()
        self.voices: dict[str, Voice] = {}
        self.jobs: list[str] = []
        self.retried: set[str] = set()
        self.deleted: set[str] = set()
        self.seen: dict[str, JobState] = {}
        model = make_model(self.settings.storage_root / "models" / "tiny")
        rows = b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n'
        file_id = self.run(add_file(self.database, self.settings, rows))
        self.spec = AlignmentJob.model_validate({"model": str(model), "data": {"train": file_id}, "serve": False})

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(what)

    def teardown(self) -> None:
        if not hasattr(self, "database"):
            return
        try:
            self.everything_comes_to_rest()
        finally:
            self.run(self.client.aclose())
            self.run(self.database.close())
            self.runner.close()
            shutil.rmtree(self.directory)

    # clients

    @rule(key=st.sampled_from([None, "a", "b"]))
    def submit(self, key: str | None) -> None:
        try:
            job, replayed = self.run(service.submit(self.database, self.settings, "ada", self.spec, key))
        except IdempotencyConflict:
            if not self.deleted:  # the key's job
                raise
            return
        assert replayed == (job.id in self.jobs)
        if not replayed:
            self.jobs.append(job.id)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, what=st.sampled_from(["pause", "resume", "cancel", "retry", "delete"]))
    def command(self, pick: int, what: str) -> None:
        self.run(self._command(pick, what))

    # attempts

    @precondition(lambda self: any(one.status is RayJobStatus.PENDING for one in self.ray.drivers.values()))
    @rule(pick=PICK)
    def a_driver_gets_a_node(self, pick: int) -> None:
        self.ray.place(self._pick(pick, RayJobStatus.PENDING))

    @precondition(lambda self: any(one.status is RayJobStatus.RUNNING for one in self.ray.drivers.values()))
    @rule(pick=PICK, events=st.integers(0, 3), end=st.sampled_from([None, None, *ENDS]), lost=st.booleans())
    def a_driver_speaks(self, pick: int, events: int, end: str | None, lost: bool) -> None:
        """lost: the answer never reaches it, so that it says the same again."""
        attempt_id = self._pick(pick, RayJobStatus.RUNNING)
        voice = self.voices.setdefault(attempt_id, Voice())
        if not voice.ended:
            first = len(voice.said)
            kinds = ["checkpoint.saved", "data.prepared"]
            voice.said += [
                EventReport(type=kinds[number % 2], message=f"{attempt_id} {number}")
                for number in range(first, first + events)
            ]
            heard = {"paused": voice.pause, "cancelled": voice.cancel}
            if end is not None and heard.get(end, True):
                voice.said.append(ENDS[end])
        self._say(attempt_id, voice, lost=lost)

    @precondition(lambda self: any(one.status is RayJobStatus.RUNNING for one in self.ray.drivers.values()))
    @rule(pick=PICK)
    def a_driver_dies(self, pick: int) -> None:
        self.ray.drivers[self._pick(pick, RayJobStatus.RUNNING)].status = RayJobStatus.FAILED

    @precondition(lambda self: self.voices)
    @rule(pick=PICK)
    def an_attempt_that_was_given_up_speaks(self, pick: int) -> None:
        attempt_id = sorted(self.voices)[pick % len(self.voices)]
        before = self.run(self._attempt(attempt_id))
        if not before.state.terminal:
            return
        batch = ReportBatch(first_seq=before.last_seq + 1, reports=[EventReport(type="data.prepared", message="late")])
        try:
            self.run(self._take(attempt_id, batch))
        except AttemptSuperseded:
            return
        raise AssertionError("a late report was taken")

    # the controller

    @rule(
        crash_in=st.none() | st.integers(0, 12),
        at=st.integers(0, 8),
        pick=PICK,
        what=st.sampled_from([None, "pause", "resume", "cancel", "retry"]),
    )
    def the_controller_takes_a_step(self, crash_in: int | None, at: int, pick: int, what: str | None) -> None:
        """It may crash at any write to the database or the cluster, and a client may speak between any two."""
        self.crash_in = crash_in
        if what is not None and self.jobs:
            self.interject = (at, lambda: self._command(pick, what))
        try:
            self.run(self._reconcile())
        except Crash:
            self.watch = watch.Watch()
        finally:
            self.crash_in = self.interject = None

    # what must hold

    @invariant()
    def nothing_is_out_of_order(self) -> None:
        if hasattr(self, "database"):
            self.run(self._check())

    def everything_comes_to_rest(self) -> None:
        """When all drivers have ended and nobody says anything any more, nothing is left on its way."""
        for _ in range(100):  # a failed attempt may be followed by another, of a job that nobody stops
            for attempt_id, driver in self.ray.drivers.items():
                if driver.status is RayJobStatus.PENDING:
                    self.ray.place(attempt_id)
                if driver.status is RayJobStatus.RUNNING:
                    driver.status = RayJobStatus.FAILED
            self.run(self._reconcile())
            on_cluster = [job for job in self.run(self._all_jobs()) if job.state in (JobState.QUEUED, *ON_CLUSTER)]
            if not on_cluster:
                break
        self.run(self._check())
        assert not on_cluster, [(job.id, job.state) for job in on_cluster]

    async def _check(self) -> None:
        async with self.database.reading() as session:
            attempts = (await session.scalars(select(Attempt).order_by(Attempt.job_id, Attempt.number))).all()
            events = (await session.scalars(select(Event).order_by(Event.job_id, Event.number))).all()
            jobs = (await session.scalars(select(Job).order_by(Job.id))).all()
        for job in jobs:
            mine = [attempt for attempt in attempts if attempt.job_id == job.id]
            told = [event for event in events if event.job_id == job.id]
            live = [attempt for attempt in mine if not attempt.state.terminal]
            assert [attempt.number for attempt in mine] == list(range(1, job.num_attempts + 1))
            assert len(live) <= 1
            assert not live or (job.state in ON_CLUSTER and live[0] is mine[-1])
            if job.state in (JobState.STARTING, JobState.RUNNING):
                assert live
            self._check_moves(job)
            if job.id in self.deleted:
                assert job.deleted_at is not None
                assert not told
                continue
            assert [event.number for event in told] == list(range(1, job.last_event + 1))
            for attempt in mine:
                said = self.voices.get(attempt.id, Voice()).said[: attempt.last_seq]
                expected = [report.message for report in said if isinstance(report, EventReport)]
                assert [event.message for event in told if event.attempt == attempt.number] == expected
                if job.state in CLEAN:
                    driver = self.ray.drivers.get(attempt.id)
                    held = driver is not None and driver.status is RayJobStatus.RUNNING
                    assert not held or self._may_outlive(job, attempt), f"{job.state} {job.id} is still on the cluster"

    def _check_moves(self, job: Job) -> None:
        before = self.seen.get(job.id)
        if before is not None and before.terminal and job.state is not before:
            assert job.id in self.retried, f"{job.id} left {before} by itself"
        self.seen[job.id] = job.state
        self.retried.discard(job.id)

    def _may_outlive(self, job: Job, attempt: Attempt) -> bool:
        """A driver that said itself that it has ended is about to; Ray is asked to stop one that was given up."""
        return self.voices.get(attempt.id, Voice()).ended or self.ray.drivers[attempt.id].stopping

    # ways and means

    async def _command(self, pick: int, what: str) -> None:
        job_id = self.jobs[pick % len(self.jobs)]
        try:
            match what:
                case "pause":
                    await lifecycle.pause(self.database, "ada", job_id)
                case "resume":
                    await lifecycle.resume(self.database, "ada", job_id)
                case "cancel":
                    await service.cancel(self.database, "ada", job_id)
                case "retry":
                    await lifecycle.retry(self.database, "ada", job_id)
                    self.retried.add(job_id)
                case "delete":
                    await deletion.delete(self.database, self.settings, "ada", job_id)
                    self.deleted.add(job_id)
        except NotFound:
            if job_id not in self.deleted:
                raise
        except InvalidState:
            return  # always an answer; what it leaves behind is checked

    async def _reconcile(self) -> None:
        controller: Controller = make_controller(self.settings, self.database, self.client)
        for reconcile in (start.reconcile, self.watch.reconcile, budget.reconcile, stop.reconcile):
            await reconcile(controller)

    async def _between(self) -> None:
        self._maybe_crash()
        if self.interject is not None:
            at, command = self.interject
            self.interject = (at - 1, command) if at else None
            if not at:
                crash_in, self.crash_in = self.crash_in, None  # the API is another process
                await command()
                self.crash_in = crash_in

    def _maybe_crash(self) -> None:
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                raise Crash

    def _pick(self, pick: int, status: RayJobStatus) -> str:
        found = sorted(name for name, driver in self.ray.drivers.items() if driver.status is status)
        return found[pick % len(found)]

    def _say(self, attempt_id: str, voice: Voice, *, lost: bool) -> None:
        batch = ReportBatch(first_seq=voice.acknowledged + 1, reports=voice.said[voice.acknowledged :])
        driver = self.ray.drivers[attempt_id]
        try:
            answer = self.run(self._take(attempt_id, batch))
        except AttemptSuperseded:
            del voice.said[self.run(self._attempt(attempt_id)).last_seq :]
            driver.status = RayJobStatus.FAILED
            return
        if lost:
            return
        assert answer.last_seq == len(voice.said)
        voice.acknowledged = answer.last_seq
        voice.cancel, voice.pause = answer.cancel, answer.pause
        if voice.ended:
            driver.status = RayJobStatus.SUCCEEDED

    async def _take(self, attempt_id: str, batch: ReportBatch) -> Any:
        async with self.database.transaction() as session:
            return await reports.take_batch(session, attempt_id, batch, self.settings)

    async def _attempt(self, attempt_id: str) -> Attempt:
        async with self.database.reading() as session:
            return (await session.scalars(select(Attempt).where(Attempt.id == attempt_id))).one()

    async def _all_jobs(self) -> list[Job]:
        async with self.database.reading() as session:
            return list((await session.scalars(select(Job).order_by(Job.id))).all())


_template: list[Path] = []


def template() -> Path:
    """A database with its tables, made once."""
    if not _template:
        path = Path(tempfile.mkdtemp()) / "template.sqlite3"
        upgrade(f"sqlite+aiosqlite:///{path}")
        _template.append(path)
    return _template[0]


def _never_sync(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


PROFILE = profile(
    max_examples=20,
    stateful_step_count=30,
    phases=(Phase.generate,),  # add Phase.shrink to look at a failure: it takes minutes
)


def test_no_interleaving_breaks_what_always_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "OUTCOME_GRACE_S", 0.0)
    run_state_machine_as_test(Plumbline, settings=PROFILE)
