"""Keeps Serve's application list as the deployments say. The only writer of that list.

A deployment's row outlives its application: it is made before the application is put, and deleted when Serve has let
go. So with no rows there is nothing to ask Serve for, and an idle cluster is left alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from service.cluster.serve import Application, AppStatus, ServedApplication
from service.controller.context import Controller
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.errors import InvalidState
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState
from service.spec import AlignmentJob, ModelRef, Storage
from service.spec.pools import Pool

_SETTLED_EVERY_S = 10.0  # between looks while nothing is on its way
_MAX_MESSAGE = 2000


class NotServable(ValueError):
    """The job's models cannot be served side by side; the message says why."""


@dataclass
class Deploy:
    """The reconciler and when it looked last."""

    looked_at: float | None = None

    async def reconcile(self, controller: Controller) -> None:
        async with controller.database.reading() as session:
            rows = await deployments.all_deployments(session)
            jobs = {row.job_id: await JobRepository(session).get(row.job_id) for row in rows}
        if not self._due(rows):
            return
        served = await controller.serve.get()
        wanted, failures = _applications(rows, jobs, served, controller)
        if differ(wanted, served):
            await controller.serve.put(wanted)
            served = await controller.serve.get()
        for row in rows:
            await _record(controller, row, served.get(row.job_id), failures.get(row.job_id))
        self.looked_at = time.monotonic()

    def _due(self, rows: Sequence[Deployment]) -> bool:
        states = {row.state for row in rows}
        if states & {DeploymentState.DEPLOYING, DeploymentState.REMOVING}:
            return True
        if DeploymentState.READY not in states:
            return False
        return self.looked_at is None or time.monotonic() - self.looked_at > _SETTLED_EVERY_S


def application(job_id: str, spec: AlignmentJob, controller: Controller) -> Application:
    """What Serve is to hold for a succeeded job. Raises NotServable."""
    if spec.model.weights == "random":
        raise NotServable(
            "The job started from random weights: there is no base to serve beside it. Use its model as `job:ID` in "
            "another job, and deploy that one."
        )
    storage = Storage(controller.settings.storage_root.resolve())
    args = {
        "job_id": job_id,
        "base": _source(spec.model, storage),
        "aligned": str(storage.model(job_id)),
        "pools": sorted(Pool.SERVING.labels),
        "engine_kwargs": controller.settings.engine_kwargs,
    }
    return Application(job_id, controller.code.serving, args)


def differ(wanted: Sequence[Application], served: dict[str, ServedApplication]) -> bool:
    """Whether the list must be put. What Serve is deleting counts as gone."""
    held = {name: app.args for name, app in served.items() if app.status is not AppStatus.DELETING}
    return held != {app.name: app.args for app in wanted}


def _source(model: ModelRef, storage: Storage) -> str:
    return str(storage.model(model.job_id)) if model.job_id else model.source


def _applications(
    rows: Sequence[Deployment], jobs: dict[str, Job], served: dict[str, ServedApplication], controller: Controller
) -> tuple[list[Application], dict[str, str]]:
    """The list to put, and why the other wanted deployments have failed, by job.

    A failed application leaves the list, so that it holds no nodes; one that Serve is still deleting waits for that.
    """
    wanted: list[Application] = []
    failures: dict[str, str] = {}
    for row in rows:
        if row.state not in deployments.WANTED:
            continue
        held = served.get(row.job_id)
        try:
            app = application(row.job_id, AlignmentJob.model_validate(jobs[row.job_id].spec), controller)
        except NotServable as error:
            failures[row.job_id] = str(error)
            continue
        except ValidationError:
            failures[row.job_id] = "The job was accepted by another version, and this one does not take its options."
            continue
        if held is not None and held.status is AppStatus.DEPLOY_FAILED:
            failures[row.job_id] = held.message or "Serve gave no reason."
        elif held is None or held.status is not AppStatus.DELETING:
            wanted.append(app)
    return wanted, failures


async def _record(controller: Controller, row: Deployment, held: ServedApplication | None, failure: str | None) -> None:
    try:
        async with controller.database.transaction() as session:
            if row.state is DeploymentState.REMOVING:
                if held is None:
                    await deployments.removed(session, row)
            elif failure is not None:
                await deployments.set_state(session, row, DeploymentState.FAILED, failure[:_MAX_MESSAGE])
            elif row.state in deployments.WANTED:
                await deployments.set_state(session, row, *_observed(held))
    except InvalidState:  # a client asked for something else in the meantime: look again
        return


def _observed(held: ServedApplication | None) -> tuple[DeploymentState, str | None]:
    if held is None:
        return DeploymentState.DEPLOYING, None
    if held.status is AppStatus.RUNNING:
        return DeploymentState.READY, None
    return DeploymentState.DEPLOYING, held.message[:_MAX_MESSAGE] or None
