"""Evaluations: have models judged, vote, and read what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from api.client.call import Call, Operation, Resource, SenderT, StreamCall, Streaming, given
from api.client.jobs import once
from api.evaluation_views import (
    Deal,
    EvaluationPage,
    EvaluationView,
    EvaluationWithProgress,
    ItemPage,
    JudgePromptList,
    MetricList,
    VoteList,
    VoteView,
)
from api.routes.evaluation_results import PairsView, ReplayView
from api.routes.gates import GateList, GateView
from service.evaluations.figures import Results

Choice = Literal["left", "right", "tie", "both_bad", "skip"]


def _create(request: Mapping[str, Any], *, idempotency_key: str | None = None) -> Call[EvaluationWithProgress]:
    """Have models answer prompts and judges compare the answers. request: `models`, `prompts`, `judges`..."""
    headers = once(idempotency_key)
    return Call("POST", "/v1/evaluations", EvaluationWithProgress, json=dict(request), headers=headers, repeatable=True)


def _list(*, limit: int = 20, cursor: str | None = None, job_id: str | None = None) -> Call[EvaluationPage]:
    params = given(limit=limit, cursor=cursor, job_id=job_id)
    return Call("GET", "/v1/evaluations", EvaluationPage, params=params, repeatable=True)


def _judge_prompts() -> Call[JudgePromptList]:
    """What an LLM judge can be told, by name."""
    return Call("GET", "/v1/evaluations/judge-prompts", JudgePromptList, repeatable=True)


def _metrics() -> Call[MetricList]:
    """The names of the metrics that installed packages offer."""
    return Call("GET", "/v1/evaluations/metrics", MetricList, repeatable=True)


def _get(evaluation_id: str) -> Call[EvaluationWithProgress]:
    return Call("GET", f"/v1/evaluations/{evaluation_id}", EvaluationWithProgress, repeatable=True)


def _watch(evaluation_id: str) -> StreamCall[EvaluationWithProgress]:
    """The evaluation now and whenever it changes, until it has ended."""
    kinds: dict[str, Any] = {"evaluation": EvaluationWithProgress}
    return StreamCall("GET", f"/v1/evaluations/{evaluation_id}", kinds, follows=True)


def _items(evaluation_id: str, *, after: int = -1, limit: int = 20) -> Call[ItemPage]:
    """The prompts with answers and verdicts. It tells whose answer is whose: vote first."""
    params = given(after=after, limit=limit)
    return Call("GET", f"/v1/evaluations/{evaluation_id}/items", ItemPage, params=params, repeatable=True)


def _cancel(evaluation_id: str) -> Call[EvaluationView]:
    return Call("POST", f"/v1/evaluations/{evaluation_id}/cancel", EvaluationView, repeatable=True)


def _close(evaluation_id: str) -> Call[EvaluationView]:
    """End the voting."""
    return Call("POST", f"/v1/evaluations/{evaluation_id}/close", EvaluationView, repeatable=True)


def _delete(evaluation_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/evaluations/{evaluation_id}", type(None))


def _deal(evaluation_id: str, *, judge: str | None = None) -> Call[Deal]:
    """The next pair to vote on; the same one again until it is voted on."""
    return Call("POST", f"/v1/evaluations/{evaluation_id}/deals", Deal, json=given(judge=judge), repeatable=True)


def _vote(evaluation_id: str, vote_id: str, choice: Choice) -> Call[VoteView]:
    asked = {"vote_id": vote_id, "choice": choice}
    return Call("POST", f"/v1/evaluations/{evaluation_id}/votes", VoteView, json=asked, repeatable=True)


def _votes(evaluation_id: str) -> Call[VoteList]:
    """One's own."""
    return Call("GET", f"/v1/evaluations/{evaluation_id}/votes", VoteList, repeatable=True)


def _undo_vote(evaluation_id: str, vote_id: str) -> Call[VoteView]:
    return Call("DELETE", f"/v1/evaluations/{evaluation_id}/votes/{vote_id}", VoteView, repeatable=True)


def _results(evaluation_id: str) -> Call[Results]:
    """Win rates with intervals, tests, agreement and ranking, of all that there is up to now."""
    return Call("GET", f"/v1/evaluations/{evaluation_id}/results", Results, repeatable=True)


def _replay(evaluation_id: str, position: int, model: int) -> Call[ReplayView]:
    """Ask a model once more what it was asked, and compare the texts. model: its place in the request."""
    asked = {"position": position, "model": model}
    return Call("POST", f"/v1/evaluations/{evaluation_id}/replay", ReplayView, json=asked, repeatable=True)


def _export_pairs(
    evaluation_id: str,
    *,
    judges: Sequence[str] | None = None,
    min_share: float = 0.5,
    next_job: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Call[PairsView]:
    """Make a training file of the answers that won and lost; with `next_job`, a merge patch on the evaluation's job,
    also a job on it."""
    asked = given(
        judges=None if judges is None else list(judges),
        min_share=min_share,
        next_job=None if next_job is None else dict(next_job),
    )
    path = f"/v1/evaluations/{evaluation_id}/pairs"
    return Call("POST", path, PairsView, json=asked, headers=once(idempotency_key), repeatable=True)


def _report(evaluation_id: str) -> Call[bytes]:
    """An HTML page of one file."""
    return Call("GET", f"/v1/evaluations/{evaluation_id}/report", bytes, repeatable=True)


def _list_gates() -> Call[GateList]:
    return Call("GET", "/v1/gates", GateList, repeatable=True)


def _get_gate(model_name: str) -> Call[GateView]:
    return Call("GET", f"/v1/gates/{quote(model_name, safe='')}", GateView, repeatable=True)


def _put_gate(model_name: str, rule: Mapping[str, Any]) -> Call[GateView]:
    """What an evaluation must show before a model is promoted to this name, or with `*` to any. For admins."""
    asked = {"model_name": model_name, "rule": dict(rule)}
    return Call("PUT", "/v1/gates", GateView, json=asked, repeatable=True)


def _delete_gate(model_name: str) -> Call[None]:
    return Call("DELETE", f"/v1/gates/{quote(model_name, safe='')}", type(None))


class Gates(Resource[SenderT]):
    list = Operation(_list_gates)
    get = Operation(_get_gate)
    put = Operation(_put_gate)
    delete = Operation(_delete_gate)


class Evaluations(Resource[SenderT]):
    create = Operation(_create)
    list = Operation(_list)
    judge_prompts = Operation(_judge_prompts)
    metrics = Operation(_metrics)
    get = Operation(_get)
    watch = Streaming(_watch)
    items = Operation(_items)
    cancel = Operation(_cancel)
    close = Operation(_close)
    delete = Operation(_delete)
    deal = Operation(_deal)
    vote = Operation(_vote)
    votes = Operation(_votes)
    undo_vote = Operation(_undo_vote)
    results = Operation(_results)
    replay = Operation(_replay)
    export_pairs = Operation(_export_pairs)
    report = Operation(_report)
