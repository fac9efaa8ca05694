"""Whether a job's models can be asked, and where."""

import asyncio
from dataclasses import dataclass
from typing import Any

from service.comparisons.request import ComparisonRequest
from service.db.session import Database
from service.deployments import service as deployments
from service.errors import InvalidRequest, ServingUnavailable
from service.jobs.repository import JobRepository
from service.jobs.states import DeploymentState
from service.serving.models import engine_url, has_chat_template, why_not
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
        raise ServingUnavailable(why_not(job.id, deployment.state if deployment else None))
    chat = await asyncio.to_thread(has_chat_template, Storage(settings.storage_root).model(job.id))
    if not chat and request.messages is not None:
        raise InvalidRequest("The model has no chat template: send `prompt` instead of `messages`.", field="messages")
    path = "chat/completions" if chat else "completions"
    return Question(engine_url(settings, job.id, path), request.openai(chat=chat))
