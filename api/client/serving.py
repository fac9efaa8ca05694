"""Served models: put them up, take them down, ask base and aligned the same."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from api.client.call import Call, Operation, Resource, SenderT, StreamCall, Streaming
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


class Deployments(Resource[SenderT]):
    create = Operation(_deploy)
    get = Operation(_get)
    delete = Operation(_undeploy)


class Comparisons(Resource[SenderT]):
    create = Operation(_compare)
    stream = Streaming(_compare_stream)
