"""Whether a job's models can be asked, and where."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.archive.local import local_model
from service.comparisons.request import ComparisonRequest
from service.db.session import Database
from service.deployments import service as deployments
from service.deployments.uses import DeploymentUses
from service.errors import InvalidRequest, ModelNotDeployed, ServingUnavailable
from service.serving.models import Side, find, has_chat_template, require_ready, sides
from service.settings import Settings


@dataclass(frozen=True)
class Question:
    """An OpenAI-style request that lacks only the model's name, and where each side is asked under which name."""

    deployment_id: str
    urls: Mapping[Side, str]
    models: Mapping[Side, str]
    body: dict[str, Any]


async def prepare(
    database: Database, settings: Settings, uses: DeploymentUses, project_id: str, request: ComparisonRequest
) -> Question:
    """Raises NotFound if the job is not the project's, ServingUnavailable unless its models answer, ModelWaking if they
    slept, and InvalidRequest for messages to a model without a chat template."""
    async with database.reading() as session:
        named = await find(session, project_id, request.job_id)
        deployment = await deployments.find(session, named.job, named.step)
    try:
        deployment = await require_ready(database, settings, uses, named, deployment)
    except ModelNotDeployed as error:
        raise ServingUnavailable(error.detail) from error
    both = sides(settings, deployment)
    directory = await local_model(database, settings, named.job.id, named.step)
    chat = await asyncio.to_thread(has_chat_template, directory)
    if not chat and request.messages is not None:
        raise InvalidRequest("The model has no chat template: send `prompt` instead of `messages`.", field="messages")
    path = "chat/completions" if chat else "completions"
    return Question(
        deployment.id,
        {side: served.url(path) for side, served in both.items()},
        {side: served.model for side, served in both.items()},
        request.openai(chat=chat),
    )
