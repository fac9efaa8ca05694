"""How models are named, and where those that are served are asked."""

import asyncio
import json
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Row, and_, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db.serving_tables import CheckpointExport, ModelName, Promotion
from service.db.session import Database
from service.db.tables import Deployment, Job
from service.deployments import service as deployments
from service.deployments.uses import DeploymentUses
from service.errors import ModelNotDeployed, ModelWaking, NotFound, ServingUnavailable
from service.ids import is_id
from service.jobs import published
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState, ExportState
from service.promotions.names import is_name
from service.settings import Settings
from service.spec.model import one_spelling

_JOB, _BASE = "job:", ":base"
_LOOK_EVERY_S = 0.5
_MAX_RETRY_AFTER_S = 60  # beyond which OpenAI's package takes its own time


_deployments, _jobs = Deployment.__table__.c, Job.__table__.c
_promotions, _names = Promotion.__table__.c, ModelName.__table__.c
_READY = (
    select(_deployments.id, _deployments.job_id, _deployments.step, _deployments.places, _deployments.used_at)
    .join_from(Deployment.__table__, Job.__table__, _jobs.id == _deployments.job_id)
    .where(_jobs.project_id == bindparam("project_id"), _deployments.state == DeploymentState.READY)
)
_READY_BY_ID = _READY.where(_deployments.id == bindparam("id"))
_READY_BY_NAME = (
    _READY.join(
        Promotion.__table__,
        and_(_promotions.job_id == _deployments.job_id, _promotions.step.is_not_distinct_from(_deployments.step)),
    )
    .join(ModelName.__table__, _names.current_id == _promotions.id)
    .where(_names.project_id == bindparam("project_id"), _names.name == bindparam("name"))
)


class Side(StrEnum):
    """The two models of a deployment."""

    BASE = "base"
    ALIGNED = "aligned"


@dataclass(frozen=True)
class Named:
    """A model that a name means: what the job made, up to `step` if it is a checkpoint; or the base beside it."""

    job: Job
    step: int | None
    side: Side


@dataclass(frozen=True)
class Served:
    """A model that answers: that of a job, or of its checkpoint after `step`. `model` is its name on the engine."""

    job_id: str
    step: int | None
    deployment_id: str
    base_url: str
    model: str

    def url(self, path: str) -> str:
        """path: such as `chat/completions`."""
        return f"{self.base_url}/{path}"


def model_name(job_id: str, side: Side = Side.ALIGNED, step: int | None = None) -> str:
    """How a job's model is named wherever a model is asked for; that of its base is no model to train from."""
    return f"{_JOB}{deployments.deployment_id(job_id, step)}{_BASE if side is Side.BASE else ''}"


def model_of(name: str) -> tuple[str, int | None, Side]:
    """Job, step and side that a name may mean: of any text, the inverse of `model_name` if it has one."""
    side = Side.BASE if name.endswith(_BASE) else Side.ALIGNED
    job_id, _, step = one_spelling(name.removesuffix(_BASE)).removeprefix(_JOB).partition("@")
    if step and not (step.isascii() and step.isdecimal() and len(step) <= 9 and step[0] != "0"):
        return "", None, side
    return job_id, int(step) if step else None, side


async def find(session: AsyncSession, project_id: str, name: str) -> Named:
    """What `name` means: a job's model, that of an exported checkpoint, a base, or what was promoted to the name.

    Raises NotFound if the project has no such model, or it is not there any more.
    """
    job_id, step, side = model_of(name)
    try:
        if not is_id("job", job_id):
            promotion = await _promoted(session, project_id, name)
            job = await JobRepository(session).get_in_project(promotion.job_id, project_id)
            return Named(job, promotion.step, Side.ALIGNED)
        if step is None:
            return Named(await published.get(session, project_id, job_id), None, side)
        job = await JobRepository(session).get_in_project(job_id, project_id)
        exported = await session.get(CheckpointExport, (job.id, step))
        if exported is None or exported.state is not ExportState.READY or exported.deleted_at is not None:
            raise NotFound(f"The checkpoint after step {step} of {job.id} is not exported.")
        return Named(job, step, side)
    except NotFound as error:
        raise NotFound(f"There is no model '{name[:100]}' among yours. GET /v1/models lists them.") from error


async def require_served(
    database: Database, settings: Settings, uses: DeploymentUses, project_id: str, name: str
) -> Served:
    """Where the model `name` is asked. One that sleeps is woken, and waited for.

    Raises NotFound if the project has no such model, ModelNotDeployed if it must be deployed first,
    ServingUnavailable while it is being deployed, and ModelWaking if it is not up in `settings.wake_wait_s`.
    """
    if (ready := await _ready(database, project_id, name)) is not None:
        await uses.begin(database, ready.id, ready.used_at)
        return _served(settings, ready, model_of(name)[2])
    async with database.reading(brief=True) as session:
        named = await find(session, project_id, name)
        deployment = await deployments.find(session, named.job, named.step)
    return _served(settings, await require_ready(database, settings, uses, named, deployment), named.side)


async def _ready(database: Database, project_id: str, name: str) -> Row[Any] | None:
    """The deployment that `name` means, if it is ready: what nearly every request finds, in one look. Nothing that is
    deployed is deleted, so its model is there."""
    if is_name(name):
        return await database.look_up(_READY_BY_NAME, project_id=project_id, name=name)
    job_id, step, _ = model_of(name)
    if not is_id("job", job_id):
        return None
    return await database.look_up(_READY_BY_ID, project_id=project_id, id=deployments.deployment_id(job_id, step))


async def require_ready(
    database: Database, settings: Settings, uses: DeploymentUses, named: Named, deployment: Deployment | None
) -> Deployment:
    """The deployment when its models answer; raises as `require_served` does. deployment: as it was just read."""
    deadline = time.monotonic() + settings.wake_wait_s
    while deployment is not None and deployment.state is not DeploymentState.READY:
        if deployment.state is DeploymentState.SLEEPING:
            async with database.transaction() as session:
                deployment = await deployments.wake(session, deployment)
        if deployment.state is not DeploymentState.DEPLOYING:
            break
        if deployment.start_s is None:  # nobody knows how long it takes the first time
            raise ServingUnavailable(why_not(named.job.id, named.step, deployment.state))
        if time.monotonic() >= deadline:
            raise _waking(named, deployment.start_s)
        await asyncio.sleep(_LOOK_EVERY_S)
        async with database.reading() as session:
            deployment = await deployments.find(session, named.job, named.step)
    if deployment is None or deployment.state is not DeploymentState.READY:
        why = why_not(named.job.id, named.step, deployment.state if deployment else None)
        raise ModelNotDeployed(why, job_id=named.job.id)
    await uses.begin(database, deployment.id, deployment.used_at)
    return deployment


def sides(settings: Settings, deployment: Deployment) -> dict[Side, Served]:
    """Both models of a deployment that is ready."""
    return {side: _served(settings, deployment, side) for side in Side}


def why_not(job_id: str, step: int | None, state: DeploymentState | None) -> str:
    """Why models that are not ready cannot be asked, and what to do."""
    route = deployments.route(job_id, step)
    which = deployments.deployment_id(job_id, step)
    match state:
        case DeploymentState.DEPLOYING:
            return f"The models of {which} are being deployed: try again when GET {route} says `ready`."
        case DeploymentState.FAILED:
            return f"The models of {which} could not be deployed, GET {route} says why; POST {route} tries again."
        case _:
            return f"The models of {which} are not deployed; POST {route} deploys them."


def has_chat_template(model: Path) -> bool:
    """model: its directory."""
    if (model / "chat_template.jinja").is_file():
        return True
    try:
        config = json.loads((model / "tokenizer_config.json").read_bytes())
    except FileNotFoundError:
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


async def _promoted(session: AsyncSession, project_id: str, name: str) -> Promotion:
    current = select(Promotion).join(ModelName, ModelName.current_id == Promotion.id)
    mine = current.where(ModelName.project_id == project_id, ModelName.name == name)
    promotion = (await session.scalars(mine)).one_or_none() if is_name(name) else None
    if promotion is None:
        raise NotFound("There is no such name.")
    return promotion


def _served(settings: Settings, deployment: Deployment | Row[Any], side: Side) -> Served:
    """deployment: ready; a row of it, or what `_ready` finds."""
    assert deployment.places is not None
    place: dict[str, Any] = deployment.places[side]
    base_url = f"{settings.serve_url.rstrip('/')}/{place['engine']}/v1"
    return Served(deployment.job_id, deployment.step, deployment.id, base_url, place["model"])


def _waking(named: Named, start_s: float) -> ModelWaking:
    which = deployments.deployment_id(named.job.id, named.step)
    return ModelWaking(
        f"The models of {which} were not up and are waking, which took {start_s:.0f} s the last time: try again.",
        retry_after_s=max(1, min(round(start_s / 2), _MAX_RETRY_AFTER_S)),
    )
