"""Who answers: where a model or judge of an evaluation is reached, and whether it may be asked at all."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from service.archive.local import local_model
from service.db.session import Database
from service.deployments.uses import DeploymentUses
from service.errors import InvalidRequest, NotFound
from service.evaluations.request import Asked, Endpoint
from service.serving import models
from service.serving.models import has_chat_template, require_served
from service.settings import EndpointKey, Settings


@dataclass(frozen=True)
class Target:
    """An OpenAI-compatible server and a model of it. chat: takes messages; otherwise a text to go on from."""

    who: str
    base_url: str
    model: str
    chat: bool
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    deployment_id: str | None = None  # of a model of ours, which must not be put to sleep while it is asked

    @property
    def path(self) -> str:
        return "chat/completions" if self.chat else "completions"

    @property
    def url(self) -> str:
        return f"{self.base_url}/{self.path}"


async def find(
    database: Database,
    settings: Settings,
    uses: DeploymentUses,
    project_id: str,
    asked: Asked,
    who: str,
    *,
    chat: bool | None = None,
) -> Target:
    """chat: None for what the model has a template for.

    Raises ModelNotDeployed or ServingUnavailable for a model of ours that does not answer yet (one that sleeps is
    woken), NotFound for one that is gone, and InvalidRequest for an endpoint that is not allowed any more.
    """
    if asked.endpoint is not None:
        key = check_endpoint(settings, project_id, asked.endpoint, "endpoint")
        headers = {} if key is None else {"Authorization": f"Bearer {key.key.get_secret_value()}"}
        return Target(who, asked.endpoint.url, asked.endpoint.model, True, headers)
    assert asked.model is not None
    served = await require_served(database, settings, uses, project_id, asked.model)
    if chat is None:
        directory = await local_model(database, settings, served.job_id, served.step)
        chat = await asyncio.to_thread(has_chat_template, directory)
    return Target(who, served.base_url, served.model, chat, deployment_id=served.deployment_id)


def check_endpoint(settings: Settings, project_id: str, endpoint: Endpoint, field: str) -> EndpointKey | None:
    """The key to send, if one is named. Raises InvalidRequest."""
    try:
        httpx.URL(endpoint.url)
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"The URL cannot be asked: {error}.", field=f"{field}.url") from error
    origin = origin_of(endpoint.url)
    if origin not in {origin_of(one) for one in settings.evaluation_origins}:
        raise InvalidRequest(
            f"Evaluations may not ask {origin}: the operator lists what they may in PLUMBLINE_EVALUATION_ORIGINS.",
            field=f"{field}.url",
        )
    if endpoint.secret is None:
        return None
    key = settings.evaluation_keys.get(endpoint.secret)
    if key is None or (key.projects is not None and project_id not in key.projects):
        raise InvalidRequest(
            f"There is no key '{endpoint.secret}' for your project: the operator sets it in PLUMBLINE_EVALUATION_KEYS.",
            field=f"{field}.secret",
        )
    if origin_of(key.origin) != origin:
        raise InvalidRequest(f"The key '{endpoint.secret}' is not for {origin}.", field=f"{field}.secret")
    return key


async def resolve(database: Database, project_id: str, name: str, field: str) -> tuple[str, str]:
    """The ID of the job that made the model, and the model's own name: what a name that models are promoted to means
    now. Raises InvalidRequest if the project has none of this name."""
    async with database.reading() as session:
        try:
            named = await models.find(session, project_id, name)
            return named.job.id, models.model_name(named.job.id, named.side, named.step)
        except NotFound as error:
            raise InvalidRequest(
                f"There is no model '{name[:100]}' among yours. GET /v1/models lists them.", field=field
            ) from error


def origin_of(url: str) -> str:
    """Scheme, host and port, in one spelling."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}:{port}"
