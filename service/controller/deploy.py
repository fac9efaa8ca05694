"""Keeps Serve's application list as the deployments say. The only writer of that list.

A deployment's row outlives its engines: it is made before they are put, and deleted when Serve has let go of those that
no other deployment needs. So with no rows there is nothing to ask Serve for, and an idle cluster is left alone. Models
that nobody has asked for `settings.serving_idle_s` are put to sleep: their rows stay, their engines go.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from service.archive.local import bring_base, local_model
from service.clock import utc_now
from service.cluster.serve import Application, AppStatus, ServedApplication
from service.controller.context import Controller
from service.controller.probe import AdapterRefused, probe
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.errors import InvalidState, ModelNotFound, ModelUnusable, NotFound, QuotaExceeded, Unavailable
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState
from service.projects import usage
from service.serving.models import Side
from service.serving.placement import Engines, Made, NotServable, Place, made_by
from service.spec import AlignmentJob, ModelRef
from service.spec.pools import Pool

log = logging.getLogger(__name__)

_SETTLED_EVERY_S = 10.0  # between looks while nothing is on its way
_MAX_MESSAGE = 2000

Held = dict[str, ServedApplication]


@dataclass
class Deploy:
    """The reconciler and when it looked last."""

    looked_at: float | None = None

    async def reconcile(self, controller: Controller) -> None:
        async with controller.database.reading() as session:
            rows = await deployments.all_deployments(session)
        if not self._due(rows):
            return
        await _put_to_sleep(controller, rows)
        for row in rows:
            if row.state in deployments.WANTED and row.places is None:
                await _find_places(controller, row)
        served = await controller.serve.get()
        wanted = _applications(rows, served, controller)
        if differ(wanted, served):
            # with this list the failed ones go, and their reasons with them
            failed = {name: app for name, app in served.items() if app.status is AppStatus.DEPLOY_FAILED}
            await controller.serve.put(wanted)
            served = await controller.serve.get() | failed
        for row in rows:
            await _record(controller, row, served, rows)
        self.looked_at = time.monotonic()

    def _due(self, rows: Sequence[Deployment]) -> bool:
        states = {row.state for row in rows}
        if states & {DeploymentState.DEPLOYING, DeploymentState.REMOVING}:
            return True
        if not states & {DeploymentState.READY, DeploymentState.SLEEPING}:
            return False
        return self.looked_at is None or time.monotonic() - self.looked_at > _SETTLED_EVERY_S


def places_of(row: Deployment) -> list[Place]:
    """Of base and aligned model; none while they are not known."""
    return [Place(**row.places[side]) for side in Side] if row.places else []


def application(place: Place, controller: Controller) -> Application:
    """What Serve is to hold for the engine of a place."""
    settings = controller.settings
    args = {
        "engine": place.engine,
        "weights": place.weights,
        "adapters": str(settings.storage_root.resolve()) if place.adapters else None,
        "max_lora_rank": settings.max_lora_rank,
        "pools": sorted(Pool.SERVING.labels),
        "engine_kwargs": settings.engine_kwargs,
    }
    if settings.serving_device is not None:
        args["gpus_per_engine"] = int(settings.unset_gpus)
    return Application(place.engine, controller.code.serving, args)


def differ(wanted: Sequence[Application], served: Held) -> bool:
    """Whether the list must be put. What Serve is deleting counts as gone."""
    held = {name: app.args for name, app in served.items() if app.status is not AppStatus.DELETING}
    return held != {app.name: app.args for app in wanted}


async def _put_to_sleep(controller: Controller, rows: Sequence[Deployment]) -> None:
    idle_s = controller.settings.serving_idle_s
    if idle_s is None:
        return
    for row in rows:
        if row.state is DeploymentState.READY and _used_before(row, utc_now() - timedelta(seconds=idle_s)):
            try:
                async with controller.database.transaction() as session:
                    await deployments.sleep(session, row)
            except InvalidState:  # somebody asked at this moment
                continue


def _used_before(row: Deployment, time: datetime) -> bool:
    return (row.used_at or row.updated_at) < time


async def _find_places(controller: Controller, row: Deployment) -> None:
    """Write down where the row's models are to be asked, or why they cannot be served."""
    try:
        async with controller.database.reading() as session:
            job = await JobRepository(session).get(row.job_id)
            spec = AlignmentJob.model_validate(job.spec)
            base = await _base(JobRepository(session), spec.model)
        await _bring_models(controller, job, row.step, spec.model)
        engines = Engines(controller.settings, job.project_id)
        sides = await asyncio.to_thread(engines.side_by_side, Made(job.id, row.step, spec), base)
    except NotServable as error:
        await _fail(controller, row, str(error))
    except Unavailable as error:  # until a model is here, its row says what is waited for
        await _set(controller, row, DeploymentState.DEPLOYING, error.detail)
    except (ModelNotFound, ModelUnusable, NotFound) as error:
        await _fail(controller, row, error.detail)
    except ValidationError:
        await _fail(controller, row, "The job was accepted by another version, and this one does not take its options.")
    else:
        try:
            await _place(controller, row, job.project_id, sides)
        except QuotaExceeded as error:
            await _fail(controller, row, error.detail)
        except InvalidState:  # a client asked for something else in the meantime: look again
            return


async def _place(controller: Controller, row: Deployment, project_id: str, sides: tuple[Place, Place]) -> None:
    """Unless the project's quota has no GPUs left for the engines: then the row says so, and waits. Raises
    QuotaExceeded if it never has, and InvalidState."""
    async with controller.database.transaction() as session:
        engines = {place.engine: place.gpus for place in sides}
        if shortage := await usage.hold_for_engines(session, project_id, engines):
            await deployments.wait(session, row, f"{shortage.quota}: {shortage.message}.")
        else:
            places = {str(side): asdict(place) for side, place in zip(Side, sides, strict=True)}
            await deployments.set_places(session, row, places)


async def _bring_models(controller: Controller, job: Job, step: int | None, base: ModelRef) -> None:
    """Put those that only the object store has on the storage, in the background, and with an adapter the weights under
    it. Raises Unavailable while one is on its way."""
    database, settings = controller.database, controller.settings
    bring = [(job.id, step)]
    if base.job_id is not None:
        bring.append((base.job_id, base.step))
    for one in bring:
        await bring_base(database, settings, await local_model(database, settings, *one, wait_s=0), wait_s=0)


async def _base(jobs: JobRepository, model: ModelRef) -> Made | None:
    if model.job_id is None:
        return None
    job: Job = await jobs.get(model.job_id)
    return made_by(model, job.spec)


def _applications(rows: Sequence[Deployment], served: Held, controller: Controller) -> list[Application]:
    """The list to put, each engine once. A failed one leaves the list, so that it holds no nodes; one that Serve is
    still deleting waits for that."""
    wanted: dict[str, Application] = {}
    for row in rows:
        if row.state not in deployments.WANTED:
            continue
        for place in places_of(row):
            held = served.get(place.engine)
            if held is None or held.status not in (AppStatus.DEPLOY_FAILED, AppStatus.DELETING):
                wanted[place.engine] = application(place, controller)
    return list(wanted.values())


async def _record(controller: Controller, row: Deployment, served: Held, rows: Sequence[Deployment]) -> None:
    """Of the rows as they were read: what was seen counts for their generation alone."""
    if row.state is DeploymentState.REMOVING:
        if not _own_engines(row, rows) & served.keys():
            await _remove(controller, row)
        return
    if row.state not in deployments.WANTED or not row.places:
        return
    held = [served.get(place.engine) for place in places_of(row)]
    for place, app in zip(places_of(row), held, strict=True):
        if app is not None and app.status is AppStatus.DEPLOY_FAILED:
            await _fail(controller, row, f"{place.weights}: {app.message or 'Serve gave no reason.'}")
            return
    if not all(app is not None and app.status is AppStatus.RUNNING for app in held):
        said = "\n".join(dict.fromkeys(app.message for app in held if app is not None and app.message))
        await _set(controller, row, DeploymentState.DEPLOYING, said or None)
    elif row.state is not DeploymentState.READY:
        try:
            answers = await probe(controller.settings, places_of(row))
        except AdapterRefused as error:
            await _fail(controller, row, str(error))
        else:
            if answers:
                await _set(controller, row, DeploymentState.READY, None)


def _own_engines(row: Deployment, rows: Sequence[Deployment]) -> set[str]:
    """Those that no other deployment keeps up."""
    others = {place.engine for other in rows if other.state in deployments.WANTED for place in places_of(other)}
    return {place.engine for place in places_of(row)} - others


async def _remove(controller: Controller, row: Deployment) -> None:
    try:
        async with controller.database.transaction() as session:
            await deployments.removed(session, row)
    except InvalidState:  # it is wanted again
        return


async def _fail(controller: Controller, row: Deployment, reason: str) -> None:
    await _set(controller, row, DeploymentState.FAILED, reason)


async def _set(controller: Controller, row: Deployment, state: DeploymentState, message: str | None) -> None:
    try:
        async with controller.database.transaction() as session:
            await deployments.set_state(session, row, state, message[:_MAX_MESSAGE] if message else None)
    except InvalidState:  # a client asked for something else in the meantime: look again
        return
