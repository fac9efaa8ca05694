"""Served models: put them up, take them down, ask base and aligned the same."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel

from api.client.call import Call, Operation, Resource, SenderT, StreamCall, Streaming, given
from api.client.jobs import once
from api.conversation_views import ConversationPage, ConversationView
from api.serving_views import PromotionHistory, PromotionView
from api.views import Comparison, DeploymentView

Prompt = str | Sequence[Mapping[str, str]]
Side = Literal["base", "aligned"]


class Delta(BaseModel):
    """The next piece of a side's answer."""

    side: Side
    text: str


class Done(BaseModel):
    """A side's answer is whole."""

    side: Side
    finish_reason: str | None
    usage: dict[str, int]


class Broken(BaseModel):
    """A side gives no (more) answer; `problem` is the API's problem+json."""

    side: Side
    problem: dict[str, Any]


def _deploy(job_id: str) -> Call[DeploymentView]:
    """Ask for the job's models to be served; seldom ready at once."""
    return Call("POST", f"/v1/jobs/{job_id}/deployment", DeploymentView, repeatable=True)


def _get(job_id: str) -> Call[DeploymentView]:
    return Call("GET", f"/v1/jobs/{job_id}/deployment", DeploymentView, repeatable=True)


def _undeploy(job_id: str) -> Call[DeploymentView]:
    return Call("DELETE", f"/v1/jobs/{job_id}/deployment", DeploymentView)


def _deploy_checkpoint(job_id: str, step: int) -> Call[DeploymentView]:
    """Ask for an exported checkpoint to be served beside its base."""
    return Call("POST", f"/v1/jobs/{job_id}/checkpoints/{step}/deployment", DeploymentView, repeatable=True)


def _get_checkpoint(job_id: str, step: int) -> Call[DeploymentView]:
    return Call("GET", f"/v1/jobs/{job_id}/checkpoints/{step}/deployment", DeploymentView, repeatable=True)


def _undeploy_checkpoint(job_id: str, step: int) -> Call[DeploymentView]:
    return Call("DELETE", f"/v1/jobs/{job_id}/checkpoints/{step}/deployment", DeploymentView)


def _promote(name: str, job_id: str, step: int | None = None) -> Call[PromotionView]:
    """Let the name mean this model as soon as it answers. step: of an exported checkpoint."""
    body = {"job": job_id} | given(step=step)
    return Call("POST", f"/v1/models/{quote(name, safe='')}/promote", PromotionView, json=body, repeatable=True)


def _rollback(name: str, to: str | None = None) -> Call[PromotionView]:
    """Let the name mean what it meant before, or in the promotion `to`."""
    return Call("POST", f"/v1/models/{quote(name, safe='')}/rollback", PromotionView, json=given(to=to))


def _promotions(name: str) -> Call[PromotionHistory]:
    """What the name means, and all that it meant."""
    return Call("GET", f"/v1/models/{quote(name, safe='')}/promotions", PromotionHistory, repeatable=True)


def _compare(
    job_id: str, prompt: Prompt, *, max_tokens: int = 256, temperature: float = 0.0, seed: int = 0
) -> Call[Comparison]:
    """Both answers, sampled with the same seed. prompt: a string or messages."""
    return Call("POST", "/v1/comparisons", Comparison, json=_question(job_id, prompt, max_tokens, temperature, seed))


def _compare_stream(
    job_id: str, prompt: Prompt, *, max_tokens: int = 256, temperature: float = 0.0, seed: int = 0
) -> StreamCall[Delta | Done | Broken]:
    """Like `compare`, as the tokens come, and the end of each side."""
    kinds: dict[str, Any] = {"delta": Delta, "done": Done, "error": Broken}
    asked = _question(job_id, prompt, max_tokens, temperature, seed)
    return StreamCall("POST", "/v1/comparisons", kinds, json=asked)


def _question(job_id: str, prompt: Prompt, max_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": [dict(one) for one in prompt]}
    return {"job_id": job_id, "max_tokens": max_tokens, "temperature": temperature, "seed": seed} | asked


def _keep(content: Mapping[str, Any], *, idempotency_key: str | None = None) -> Call[ConversationView]:
    """Keep what several models were asked and answered: `models`, `sampling`, `turns`."""
    headers = once(idempotency_key)
    return Call("POST", "/v1/conversations", ConversationView, json=dict(content), headers=headers, repeatable=True)


def _conversations(*, limit: int = 20, cursor: str | None = None) -> Call[ConversationPage]:
    """Yours, newest first, without what was said in them."""
    return Call("GET", "/v1/conversations", ConversationPage, params=given(limit=limit, cursor=cursor), repeatable=True)


def _conversation(conversation_id: str) -> Call[ConversationView]:
    return Call("GET", f"/v1/conversations/{conversation_id}", ConversationView, repeatable=True)


def _replace(conversation_id: str, content: Mapping[str, Any]) -> Call[ConversationView]:
    """The conversation has gone on: keep it as it is now."""
    path = f"/v1/conversations/{conversation_id}"
    return Call("PUT", path, ConversationView, json=dict(content), repeatable=True)


def _forget(conversation_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/conversations/{conversation_id}", type(None))


def _forget_all() -> Call[None]:
    """All of yours."""
    return Call("DELETE", "/v1/conversations", type(None))


class Deployments(Resource[SenderT]):
    create = Operation(_deploy)
    get = Operation(_get)
    delete = Operation(_undeploy)
    create_checkpoint = Operation(_deploy_checkpoint)
    get_checkpoint = Operation(_get_checkpoint)
    delete_checkpoint = Operation(_undeploy_checkpoint)


class Models(Resource[SenderT]):
    """The names that models are promoted to; OpenAI's package lists and deletes models."""

    promote = Operation(_promote)
    rollback = Operation(_rollback)
    promotions = Operation(_promotions)


class Comparisons(Resource[SenderT]):
    create = Operation(_compare)
    stream = Streaming(_compare_stream)


class Conversations(Resource[SenderT]):
    create = Operation(_keep)
    list = Operation(_conversations)
    get = Operation(_conversation)
    replace = Operation(_replace)
    delete = Operation(_forget)
    delete_all = Operation(_forget_all)
