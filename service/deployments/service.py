"""Which jobs' models are wanted on Serve. The controller makes it so."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import audit
from service.clock import utc_now
from service.db.guarded import guarded_update
from service.db.tables import Deployment, Job
from service.errors import InvalidState, NotFound
from service.jobs.repository import JobRepository, append_event
from service.jobs.states import DeploymentState, JobState

WANTED = (DeploymentState.DEPLOYING, DeploymentState.READY)


async def get(session: AsyncSession, job: Job) -> Deployment:
    """Raises NotFound if the job's models are not deployed."""
    deployment = await find(session, job)
    if deployment is None:
        raise NotFound(f"The models of {job.id} are not deployed: POST /v1/jobs/{job.id}/deployment deploys them.")
    return deployment


async def find(session: AsyncSession, job: Job) -> Deployment | None:
    return await session.get(Deployment, job.id, populate_existing=True)


async def find_many(session: AsyncSession, job_ids: Sequence[str]) -> dict[str, Deployment]:
    """By job ID; jobs without a deployment are left out."""
    rows = await session.scalars(select(Deployment).where(Deployment.job_id.in_(job_ids)))
    return {deployment.job_id: deployment for deployment in rows}


async def want(session: AsyncSession, job: Job) -> Deployment:
    """Ask for the job's base and aligned model on Serve; again after a failure or a removal, else nothing changes.

    Raises InvalidState unless the job has succeeded.
    """
    job = await JobRepository(session).get(job.id, lock=True)
    if job.state is not JobState.SUCCEEDED:
        raise InvalidState(
            f"The job is {job.state}; only a job that has succeeded has a model to deploy.", state=job.state
        )
    if job.model_deleted_at is not None:
        raise InvalidState("The job's model was deleted: there is nothing to deploy.")
    deployment = await find(session, job)
    if deployment is not None and deployment.state in WANTED:
        return deployment
    now = utc_now()
    if deployment is None:
        deployment = Deployment(
            job_id=job.id, state=DeploymentState.DEPLOYING, generation=1, created_at=now, updated_at=now
        )
        session.add(deployment)
    else:
        deployment.state = DeploymentState.DEPLOYING
        deployment.message = None
        deployment.generation += 1
        deployment.updated_at = now
    await session.flush()
    await append_event(session, job, "deployment.deploying", _MESSAGES[DeploymentState.DEPLOYING])
    await audit.record(session, job.id)
    return deployment


async def unwant(session: AsyncSession, job: Job) -> Deployment:
    """Ask for the models to be taken down; idempotent while that goes on. NotFound if there is nothing to take down."""
    job = await JobRepository(session).get(job.id, lock=True)
    deployment = await get(session, job)
    if deployment.state is not DeploymentState.REMOVING:
        await set_state(session, deployment, DeploymentState.REMOVING)
        await audit.record(session, job.id)
    return deployment


async def all_wanted(session: AsyncSession) -> Sequence[Deployment]:
    """What Serve should hold: deploying or ready, oldest first."""
    return await _in_states(session, WANTED)


async def all_deployments(session: AsyncSession) -> Sequence[Deployment]:
    """Every row, oldest first: also the failed ones and those that Serve has yet to let go of."""
    return await _in_states(session, tuple(DeploymentState))


async def set_state(
    session: AsyncSession, deployment: Deployment, state: DeploymentState, message: str | None = None
) -> None:
    """Record what was seen on Serve, with the event `deployment.<state>` if the state is another one.

    Raises InvalidState if the deployment was changed since it was read: look again.
    """
    before = deployment.state
    if (before, deployment.message) == (state, message):
        return
    values = {"state": state, "message": message, "updated_at": utc_now()}
    if not await guarded_update(session, deployment, values, *_as_read(deployment)):
        raise InvalidState(f"The deployment of {deployment.job_id} was changed in the meantime.")
    if state is not before:
        job = await JobRepository(session).get(deployment.job_id)
        await append_event(session, job, f"deployment.{state}", message or _MESSAGES[state])


async def removed(session: AsyncSession, deployment: Deployment) -> None:
    """Serve has let go: forget the row. Raises InvalidState if the deployment is wanted again."""
    assert deployment.state is DeploymentState.REMOVING
    gone = delete(Deployment).where(Deployment.job_id == deployment.job_id, *_as_read(deployment))
    deleted = await session.execute(gone.returning(Deployment.job_id), execution_options={"synchronize_session": False})
    if deleted.one_or_none() is None:
        raise InvalidState(f"The deployment of {deployment.job_id} is wanted again.")
    job = await JobRepository(session).get(deployment.job_id)
    await append_event(session, job, "deployment.removed", "Base and aligned model were taken down.")


_MESSAGES = {
    DeploymentState.DEPLOYING: "Base and aligned model are being deployed.",
    DeploymentState.READY: "Base and aligned model answer.",
    DeploymentState.FAILED: "The models could not be deployed.",
    DeploymentState.REMOVING: "Base and aligned model are being taken down.",
}


def _as_read(deployment: Deployment) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Deployment.state == deployment.state, Deployment.generation == deployment.generation


async def _in_states(session: AsyncSession, states: tuple[DeploymentState, ...]) -> Sequence[Deployment]:
    chosen = select(Deployment).where(Deployment.state.in_(states)).order_by(Deployment.created_at, Deployment.job_id)
    return (await session.scalars(chosen)).all()
