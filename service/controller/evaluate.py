"""Works through evaluations, a few of each project at a time. Tuned by `settings.evaluation_*`.

Each is served by a task of its own; one that waits for a deployment, or whose server is away, keeps only itself
waiting, and says so; one whose server is slow keeps its own project waiting at most. A controller that takes over goes
on from the rows that are there.
"""

import asyncio
import logging
import time
from collections import defaultdict
from types import TracebackType
from typing import Self

import httpx

from service.controller.context import Controller
from service.db.evaluation_tables import Evaluation
from service.db.session import Database
from service.deployments import service as deployments
from service.deployments.uses import WRITE_EVERY_S, DeploymentUses
from service.errors import InvalidRequest, InvalidState, ModelNotDeployed, NotFound, ServingUnavailable, Unavailable
from service.evaluations import service as evaluations
from service.evaluations.ask import Away, Unusable
from service.evaluations.repository import EvaluationRepository
from service.evaluations.request import HumanJudge, LlmJudge
from service.evaluations.run import Run
from service.evaluations.states import MACHINE, EvaluationState
from service.jobs.states import DeploymentState
from service.serving import models

log = logging.getLogger(__name__)

_MAX_AT_ONCE = 4  # of a project, those that wait for something not counted
_WAIT_S = 2.0  # for engines that are being started
_AWAY_WAIT_S = 30.0  # for servers that had no answer to questions that were asked as often as they may be


class Evaluate:
    """The reconciler and the evaluations that are under way."""

    def __init__(self) -> None:
        # Servers outside are asked as they are named: no proxy, no redirects
        self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None))
        self._running: dict[str, asyncio.Task[None]] = {}
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_MAX_AT_ONCE))
        self._uses = DeploymentUses()
        self._uses_written_at = 0.0  # by a monotonic clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._client.aclose()

    async def reconcile(self, controller: Controller) -> None:
        """Begin what waits and stop what was cancelled. Raises what went wrong in what was begun before."""
        ended = [self._running.pop(name) for name, task in list(self._running.items()) if task.done()]
        async with controller.database.reading() as session:
            found = await EvaluationRepository(session).in_states(MACHINE)
        for evaluation in found:
            if evaluation.cancel_requested_at is not None:
                await self._cancel(controller.database, evaluation)
            elif evaluation.id not in self._running:
                work = _work(controller, self._uses, self._client, self._slots[evaluation.project_id], evaluation)
                self._running[evaluation.id] = asyncio.create_task(work)
        if time.monotonic() - self._uses_written_at > WRITE_EVERY_S:  # so that nothing that is asked is put to sleep
            await self._uses.write(controller.database)
            self._uses_written_at = time.monotonic()
        for task in ended:
            if not task.cancelled():
                task.result()

    async def _cancel(self, database: Database, evaluation: Evaluation) -> None:
        task = self._running.pop(evaluation.id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        async with database.transaction() as session:
            row = await EvaluationRepository(session).get(evaluation.id, lock=True)
            if not row.state.terminal:
                evaluations.move(row, EvaluationState.CANCELLED)


async def _work(
    controller: Controller,
    uses: DeploymentUses,
    client: httpx.AsyncClient,
    slot: asyncio.Semaphore,
    evaluation: Evaluation,
) -> None:
    """To the end of what machines can do, or until it turns out that they cannot."""
    database = controller.database
    try:
        while True:
            try:
                async with slot:
                    if not await _begin(database, evaluation):
                        return
                    await Run(database, controller.settings, uses, client, evaluation).run()
                break
            except ModelNotDeployed:
                await _deploy(database, evaluation)
            except (ServingUnavailable, Unavailable):  # it is on its way
                pass
            except Away as error:
                await _wait(database, evaluation, f"{error}. It is asked again until it answers; cancel to stop.")
                await asyncio.sleep(max(_AWAY_WAIT_S, error.retry_after_s))
                continue
            await asyncio.sleep(_WAIT_S)
        await _end(database, evaluation)
    except (NotFound, InvalidRequest, InvalidState) as error:
        await _fail(database, evaluation, error.code, error.detail)
    except Unusable as error:
        await _fail(database, evaluation, "endpoint_unusable", str(error))


async def _begin(database: Database, evaluation: Evaluation) -> bool:
    """Whether there is still something to do."""
    async with database.transaction() as session:
        row = await EvaluationRepository(session).get(evaluation.id, lock=True)
        if row.state is EvaluationState.QUEUED:
            evaluations.move(row, EvaluationState.RUNNING)
        return row.state is EvaluationState.RUNNING


async def _end(database: Database, evaluation: Evaluation) -> None:
    people = bool(evaluations.request_of(evaluation).places(HumanJudge))
    async with database.transaction() as session:
        row = await EvaluationRepository(session).get(evaluation.id, lock=True)
        if row.state is EvaluationState.RUNNING and row.cancel_requested_at is None:
            evaluations.move(row, EvaluationState.VOTING if people else EvaluationState.COMPLETED)


async def _deploy(database: Database, evaluation: Evaluation) -> None:
    """Ask for the models of ours that the evaluation names. Raises InvalidState if that has failed since it was
    made, and NotFound."""
    request = evaluations.request_of(evaluation)
    asked = [*request.models, *(judge for judge in request.judges if isinstance(judge, LlmJudge))]
    for name in sorted({one.model for one in asked if one.model is not None}):
        async with database.transaction() as session:
            named = await models.find(session, evaluation.project_id, name)
            deployment = await deployments.find(session, named.job, named.step)
            failed = deployment is not None and deployment.state is DeploymentState.FAILED
            if deployment is not None and failed and deployment.updated_at > evaluation.created_at:
                raise InvalidState(f"The model '{name}' could not be deployed: {deployment.message}")
            await deployments.want(session, named.job, named.step)


async def _wait(database: Database, evaluation: Evaluation, reason: str) -> None:
    log.warning("evaluation %s waits: %s", evaluation.id, reason)
    async with database.transaction() as session:
        await evaluations.wait(session, evaluation, reason)


async def _fail(database: Database, evaluation: Evaluation, code: str, message: str) -> None:
    log.warning("evaluation %s: %s", evaluation.id, message)
    async with database.transaction() as session:
        await evaluations.fail(session, evaluation, code, message)
