"""Which models are wanted on Serve. The controller makes it so.

A deployment is a job's base and aligned model side by side; in place of what the job published it may serve the model
of an exported checkpoint.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.serving_tables import CheckpointExport, Promotion
from service.db.tables import Deployment, Job
from service.errors import InvalidState, NotFound
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import DeploymentState, ExportState, JobState, PromotionState

WANTED = (DeploymentState.DEPLOYING, DeploymentState.READY)


def deployment_id(job_id: str, step: int | None = None) -> str:
    """Also what clients call the model, after `job:`."""
    return job_id if step is None else f"{job_id}@{step}"


def route(job_id: str, step: int | None = None) -> str:
    """Of the API, for people who are told what to do."""
    return f"/v1/jobs/{job_id}/deployment" if step is None else f"/v1/jobs/{job_id}/checkpoints/{step}/deployment"


async def get(session: AsyncSession, job: Job, step: int | None = None) -> Deployment:
    """Raises NotFound if the models are not deployed."""
    deployment = await find(session, job, step)
    if deployment is None:
        raise NotFound(
            f"The models of {deployment_id(job.id, step)} are not deployed: POST {route(job.id, step)} deploys them."
        )
    return deployment


async def find(session: AsyncSession, job: Job, step: int | None = None) -> Deployment | None:
    return await session.get(Deployment, deployment_id(job.id, step), populate_existing=True)


async def find_many(session: AsyncSession, job_ids: Sequence[str]) -> dict[str, Deployment]:
    """Those of what jobs published, by job ID; jobs without one are left out."""
    rows = await session.scalars(select(Deployment).where(Deployment.id.in_(job_ids)))
    return {deployment.job_id: deployment for deployment in rows}


async def of_job(session: AsyncSession, job_id: str) -> Sequence[Deployment]:
    """Those of its checkpoints too."""
    return (await session.scalars(select(Deployment).where(Deployment.job_id == job_id).order_by(Deployment.id))).all()


async def want(session: AsyncSession, job: Job, step: int | None = None) -> Deployment:
    """Ask for base and aligned model on Serve; again after a failure or a removal, and from sleep. Else nothing
    changes.

    Raises InvalidState unless the model is there: the job has succeeded, or the checkpoint is exported.
    """
    job = await JobRepository(session).get(job.id, lock=True)
    await require_model(session, job, step)
    deployment = await find(session, job, step)
    if deployment is not None and deployment.state in WANTED:
        return deployment
    if deployment is None:
        now = utc_now()
        deployment = Deployment(
            id=deployment_id(job.id, step),
            job_id=job.id,
            step=step,
            state=DeploymentState.DEPLOYING,
            generation=1,
            deploying_since=now,
            created_at=now,
            updated_at=now,
        )
        session.add(deployment)
        await session.flush()
    else:
        await _deploy_anew(session, deployment)
    await _tell(session, job, deployment, DeploymentState.DEPLOYING, _MESSAGES[DeploymentState.DEPLOYING])
    await audit.record(session, deployment.id)
    return deployment


async def require_model(session: AsyncSession, job: Job, step: int | None) -> None:
    """Raises InvalidState unless there is a model to deploy."""
    if step is not None:
        exported = await session.get(CheckpointExport, (job.id, step), populate_existing=True)
        if exported is None or exported.state is not ExportState.READY or exported.deleted_at is not None:
            raise InvalidState(
                f"The checkpoint after step {step} is not exported: POST /v1/jobs/{job.id}/checkpoints/{step}/export "
                "makes a model of it.",
                state=exported.state if exported is not None else None,
            )
    elif job.state is not JobState.SUCCEEDED:
        raise InvalidState(
            f"The job is {job.state}; only a job that has succeeded has a model to deploy.", state=job.state
        )
    elif job.model_deleted_at is not None:
        raise InvalidState("The job's model was deleted: there is nothing to deploy.")


async def wake(session: AsyncSession, deployment: Deployment) -> Deployment:
    """A request came for sleeping models. Returns the deployment as it is then; raises NotFound if it is gone."""
    job = await JobRepository(session).get(deployment.job_id, lock=True)
    fresh = await get(session, job, deployment.step)
    if fresh.state is DeploymentState.SLEEPING:
        await _deploy_anew(session, fresh)
        await _tell(session, job, fresh, DeploymentState.DEPLOYING, "A request woke base and aligned model.")
    return fresh


async def sleep(session: AsyncSession, deployment: Deployment) -> None:
    """Nobody asked for long. Raises InvalidState if the deployment was asked or changed since it was read."""
    job = await _locked_job(session, deployment)
    values = {"state": DeploymentState.SLEEPING, "message": None, "updated_at": utc_now()}
    if not await guarded_update(session, deployment, values, *_as_read(deployment), _used_as_read(deployment)):
        raise InvalidState(f"The deployment of {deployment.id} was used in the meantime.")
    await _tell(session, job, deployment, DeploymentState.SLEEPING, _MESSAGES[DeploymentState.SLEEPING])


async def unwant(session: AsyncSession, job: Job, step: int | None = None) -> Deployment:
    """Ask for the models to be taken down; idempotent while that goes on. NotFound if there is nothing to take down,
    InvalidState while a name means the model."""
    job = await JobRepository(session).get(job.id, lock=True)
    deployment = await get(session, job, step)
    if deployment.state is not DeploymentState.REMOVING:
        await require_unnamed(session, job.id, step)
        await set_state(session, deployment, DeploymentState.REMOVING)
        await audit.record(session, deployment.id)
    return deployment


async def require_unnamed(session: AsyncSession, job_id: str, step: int | None) -> None:
    """Raises InvalidState while a name means the model, or is about to."""
    named = select(Promotion.name).where(
        Promotion.job_id == job_id,
        Promotion.step.is_(None) if step is None else Promotion.step == step,
        Promotion.state.in_((PromotionState.CURRENT, PromotionState.PENDING)),
    )
    if name := (await session.scalars(named.limit(1))).one_or_none():
        raise InvalidState(
            f"The model is promoted as '{name}': promote another one, or DELETE /v1/models/{name}, first.", name=name
        )


async def all_wanted(session: AsyncSession) -> Sequence[Deployment]:
    """What Serve should hold: deploying or ready, oldest first."""
    return await _in_states(session, WANTED)


async def all_deployments(session: AsyncSession) -> Sequence[Deployment]:
    """Every row, oldest first: also those that sleep, have failed, or that Serve has yet to let go of."""
    return await _in_states(session, tuple(DeploymentState))


async def set_places(session: AsyncSession, deployment: Deployment, places: dict[str, Any]) -> None:
    """Where its models are asked. Raises InvalidState if the deployment was changed since it was read."""
    if not await guarded_update(session, deployment, {"places": places}, *_as_read(deployment)):
        raise InvalidState(f"The deployment of {deployment.id} was changed in the meantime.")


async def wait(session: AsyncSession, deployment: Deployment, reason: str) -> None:
    """Something of the project's quota must end first: written down, and told once. Raises as `set_state` does."""
    waited = (deployment.message or "").startswith(_WAITS)
    job = await _locked_job(session, deployment)
    await set_state(session, deployment, DeploymentState.DEPLOYING, _WAITS + reason)
    if not waited:
        await _tell(session, job, deployment, "waiting", _WAITS + reason)


async def set_state(
    session: AsyncSession, deployment: Deployment, state: DeploymentState, message: str | None = None
) -> None:
    """Record what was seen on Serve, with the event `deployment.<state>` if the state is another one.

    Raises InvalidState if the deployment was changed since it was read: look again.
    """
    before = deployment.state
    if (before, deployment.message) == (state, message):
        return
    job = await _locked_job(session, deployment)
    now = utc_now()
    values: dict[str, Any] = {"state": state, "message": message, "updated_at": now}
    if state is not before and state is DeploymentState.READY:
        values |= {"used_at": now, "start_s": (now - deployment.deploying_since).total_seconds()}
    elif state is not before and state is DeploymentState.DEPLOYING:  # it was ready, and is being mended
        values["deploying_since"] = now
    if not await guarded_update(session, deployment, values, *_as_read(deployment)):
        raise InvalidState(f"The deployment of {deployment.id} was changed in the meantime.")
    if state is not before:
        await _tell(session, job, deployment, state, message or _MESSAGES[state])


async def removed(session: AsyncSession, deployment: Deployment) -> None:
    """Serve has let go: forget the row. Raises InvalidState if the deployment is wanted again."""
    assert deployment.state is DeploymentState.REMOVING
    job = await _locked_job(session, deployment)
    gone = delete(Deployment).where(Deployment.id == deployment.id, *_as_read(deployment))
    deleted = await session.execute(gone.returning(Deployment.id), execution_options={"synchronize_session": False})
    if deleted.one_or_none() is None:
        raise InvalidState(f"The deployment of {deployment.id} is wanted again.")
    await _tell(session, job, deployment, "removed", "Base and aligned model were taken down.")


_WAITS = "The models are not served yet: "
_MESSAGES = {
    DeploymentState.DEPLOYING: "Base and aligned model are being deployed.",
    DeploymentState.READY: "Base and aligned model answer.",
    DeploymentState.SLEEPING: "Nobody has asked for long: base and aligned model sleep until the next request.",
    DeploymentState.FAILED: "The models could not be deployed.",
    DeploymentState.REMOVING: "Base and aligned model are being taken down.",
}


async def _deploy_anew(session: AsyncSession, deployment: Deployment) -> None:
    """Of a row that was read in this transaction, with its job locked."""
    now: datetime = utc_now()
    deployment.state = DeploymentState.DEPLOYING
    deployment.message = None
    deployment.generation += 1
    deployment.places = None
    deployment.deploying_since = now
    deployment.updated_at = now
    await session.flush()


async def _locked_job(session: AsyncSession, deployment: Deployment) -> Job:
    """Before the deployment's row, as clients' requests lock them: each event of it is written into its job."""
    return await JobRepository(session).get(deployment.job_id, lock=True)


async def _tell(
    session: AsyncSession, job: Job, deployment: Deployment, what: DeploymentState | str, message: str
) -> None:
    data = {} if deployment.step is None else {"step": deployment.step}
    told = message if deployment.step is None else f"Checkpoint after step {deployment.step}: {message}"
    await append_event(session, job, f"deployment.{what}", told, data=data)


def _as_read(deployment: Deployment) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Deployment.state == deployment.state, Deployment.generation == deployment.generation


def _used_as_read(deployment: Deployment) -> ColumnElement[bool]:
    return Deployment.used_at.is_(None) if deployment.used_at is None else Deployment.used_at == deployment.used_at


async def _in_states(session: AsyncSession, states: tuple[DeploymentState, ...]) -> Sequence[Deployment]:
    chosen = select(Deployment).where(Deployment.state.in_(states)).order_by(Deployment.created_at, Deployment.id)
    return (await session.scalars(chosen)).all()
