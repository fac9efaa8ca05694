"""The models of a job as they are named, and whether they can be asked."""

import json
from enum import StrEnum
from pathlib import Path

from service.db.session import Database
from service.db.tables import Job
from service.deployments import service as deployments
from service.errors import ModelNotDeployed, NotFound, ServingUnavailable
from service.jobs import published
from service.jobs.states import DeploymentState
from service.settings import Settings

_JOB, _BASE = "job:", ":base"


class Side(StrEnum):
    """What the engines call the two models."""

    BASE = "base"
    ALIGNED = "aligned"


def model_name(job_id: str, side: Side = Side.ALIGNED) -> str:
    """How a job's model is named wherever a model is asked for; that of its base is no model to train from."""
    return f"{_JOB}{job_id}{_BASE if side is Side.BASE else ''}"


def model_of(name: str) -> tuple[str, Side]:
    """The job and the side that a name may mean: of any text, the inverse of `model_name` if it has one."""
    job_id = name.removeprefix(_JOB)
    side = Side.BASE if job_id.endswith(_BASE) else Side.ALIGNED
    return job_id.removesuffix(_BASE), side


async def require_served(database: Database, project_id: str, name: str) -> tuple[Job, Side]:
    """The job whose engines answer for the model `name`.

    Raises NotFound if the project has no such model, ModelNotDeployed if it must be deployed first, and
    ServingUnavailable while it is being deployed.
    """
    job_id, side = model_of(name)
    async with database.reading() as session:
        try:
            job = await published.get(session, project_id, job_id)
        except NotFound as error:
            raise NotFound(f"There is no model '{name[:100]}' among yours. GET /v1/models lists them.") from error
        deployment = await deployments.find(session, job)
    state = deployment.state if deployment else None
    if state is DeploymentState.READY:
        return job, side
    if state is DeploymentState.DEPLOYING:
        raise ServingUnavailable(why_not(job.id, state))
    raise ModelNotDeployed(why_not(job.id, state), job_id=job.id)


def why_not(job_id: str, state: DeploymentState | None) -> str:
    """Why models that are not ready cannot be asked, and what to do."""
    again = f"POST /v1/jobs/{job_id}/deployment"
    match state:
        case DeploymentState.DEPLOYING:
            return f"The models of {job_id} are being deployed: try again when GET /v1/jobs/{job_id} says `ready`."
        case DeploymentState.FAILED:
            return f"The models of {job_id} could not be deployed; {again} tries again."
        case _:
            return f"The models of {job_id} are not deployed; {again} deploys them."


def engine_url(settings: Settings, job_id: str, path: str) -> str:
    """path: such as `chat/completions`."""
    return f"{settings.serve_url.rstrip('/')}/{job_id}/v1/{path}"


def has_chat_template(model: Path) -> bool:
    """model: its directory."""
    if (model / "chat_template.jinja").is_file():
        return True
    try:
        config = json.loads((model / "tokenizer_config.json").read_bytes())
    except FileNotFoundError:
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))
