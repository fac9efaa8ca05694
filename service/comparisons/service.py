"""Whether a job's models can be asked, and where."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.comparisons.request import ComparisonRequest
from service.db.session import Database
from service.deployments import service as deployments
from service.errors import InvalidRequest, ServingUnavailable
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState
from service.settings import Settings
from service.spec import Storage


@dataclass(frozen=True)
class Question:
    """An OpenAI-style request that lacks only the model's name."""

    url: str
    body: dict[str, Any]


async def prepare(database: Database, settings: Settings, project_id: str, request: ComparisonRequest) -> Question:
    """Raises NotFound if the job is not the project's, ServingUnavailable unless its models answer, and InvalidRequest
    for messages to a model without a chat template."""
    async with database.reading() as session:
        job = await JobRepository(session).get_in_project(request.job_id, project_id)
        deployment = await deployments.find(session, job)
    if deployment is None or deployment.state is not DeploymentState.READY:
        raise ServingUnavailable(_why_not(job.id, deployment.state if deployment else None))
    chat = await asyncio.to_thread(_has_chat_template, Storage(settings.storage_root).model(job.id))
    if not chat and request.messages is not None:
        raise InvalidRequest("The model has no chat template: send `prompt` instead of `messages`.", field="messages")
    path = "chat/completions" if chat else "completions"
    return Question(f"{settings.serve_url.rstrip('/')}/{job.id}/v1/{path}", request.openai(chat=chat))


def _why_not(job_id: str, state: DeploymentState | None) -> str:
    again = f"POST /v1/jobs/{job_id}/deployment"
    match state:
        case DeploymentState.DEPLOYING:
            return f"The models of {job_id} are being deployed: try again when GET /v1/jobs/{job_id} says `ready`."
        case DeploymentState.FAILED:
            return f"The models of {job_id} could not be deployed; {again} tries again."
        case _:
            return f"The models of {job_id} are not deployed; {again} deploys them."


def _has_chat_template(model: Path) -> bool:
    if (model / "chat_template.jinja").is_file():
        return True
    try:
        config = json.loads((model / "tokenizer_config.json").read_bytes())
    except FileNotFoundError:
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))
