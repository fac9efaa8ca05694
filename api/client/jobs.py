"""Jobs, and what they say of themselves."""

import uuid
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from api.client.call import Call, Operation, Resource, SenderT, StreamCall, Streaming, given
from api.queue_views import DryRunView
from api.serving_views import CheckpointPage, ExportDeleted, ExportView
from api.views import (
    Curve,
    EventPage,
    EventView,
    JobDeleted,
    JobPage,
    JobView,
    LogView,
    MetricPage,
    MetricView,
)
from service.jobs.states import JobState
from service.spec import AlignmentJob
from service.spec.data_report import DataReport

Split = Literal["train", "held_out"]
Patch = Mapping[str, Any]
Spec = AlignmentJob | Mapping[str, Any]


def body(spec: BaseModel | Mapping[str, Any]) -> Any:
    """What was set and nothing else: defaults are the server's."""
    return spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, BaseModel) else dict(spec)


def once(key: str | None) -> dict[str, str]:
    """The header under which a repetition makes nothing twice; a new key if none is given."""
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def _create(spec: Spec, *, idempotency_key: str | None = None) -> Call[JobView]:
    """Queue a job. With a key of yours, sending it again gets the same job, also from another process."""
    return Call("POST", "/v1/jobs", JobView, json=body(spec), headers=once(idempotency_key), repeatable=True)


def _dry_run(spec: Spec) -> Call[DryRunView]:
    """What would become of the job: every check, cost and time. Nothing is queued."""
    return Call("POST", "/v1/jobs", DryRunView, params={"dry_run": "true"}, json=body(spec), repeatable=True)


def _get(job_id: str) -> Call[JobView]:
    return Call("GET", f"/v1/jobs/{job_id}", JobView, repeatable=True)


def _list(
    *,
    limit: int = 20,
    cursor: str | None = None,
    state: JobState | str | None = None,
    labels: Mapping[str, str] | None = None,
    q: str | None = None,
    owner: str | None = None,
    sweep_id: str | None = None,
    project: str | None = None,
) -> Call[JobPage]:
    """One page, newest first. cursor: `next_cursor` of the page before. labels: only jobs with all of these. q: words
    that the job's name, ID, owner, model, data, losses or labels contain. project: another one than the key's own, or
    "*" for all; for operators."""
    label = [f"{name}={value}" for name, value in labels.items()] if labels else None
    params = given(
        limit=limit, cursor=cursor, state=state, label=label, q=q, owner=owner, sweep_id=sweep_id, project=project
    )
    return Call("GET", "/v1/jobs", JobPage, params=params, repeatable=True)


def _cancel(job_id: str) -> Call[JobView]:
    """Ask the job to stop; asking again is harmless."""
    return Call("POST", f"/v1/jobs/{job_id}/cancel", JobView, repeatable=True)


def _pause(job_id: str) -> Call[JobView]:
    """Have the job save a checkpoint and leave the cluster; it keeps its place in the queue."""
    return Call("POST", f"/v1/jobs/{job_id}/pause", JobView, repeatable=True)


def _resume(job_id: str, *, max_gpu_hours: float | None = None) -> Call[JobView]:
    """Go on from the last checkpoint. max_gpu_hours: the job's budget from now on, what it has used included."""
    path, budget = f"/v1/jobs/{job_id}/resume", given(max_gpu_hours=max_gpu_hours)
    return Call("POST", path, JobView, json=budget, repeatable=True)


def _retry(job_id: str, *, max_gpu_hours: float | None = None) -> Call[JobView]:
    """Queue a failed or cancelled job again; it goes on from its last checkpoint, if it has one."""
    return Call("POST", f"/v1/jobs/{job_id}/retry", JobView, json=given(max_gpu_hours=max_gpu_hours))


def _clone(job_id: str, changes: Patch | None = None, *, idempotency_key: str | None = None) -> Call[JobView]:
    """A new job from this one's specification. changes: a JSON Merge Patch (RFC 7396) on it."""
    path, headers = f"/v1/jobs/{job_id}/clone", once(idempotency_key)
    return Call("POST", path, JobView, json=dict(changes or {}), headers=headers, repeatable=True)


def _delete(job_id: str) -> Call[JobDeleted]:
    """Delete a job that has ended, with its model, checkpoints and log."""
    return Call("DELETE", f"/v1/jobs/{job_id}", JobDeleted)


def _checkpoints(job_id: str) -> Call[CheckpointPage]:
    return Call("GET", f"/v1/jobs/{job_id}/checkpoints", CheckpointPage, repeatable=True)


def _curve(job_id: str, *, points: int = 500, split: Split = "train") -> Call[Curve]:
    """The whole curve of every metric in at most `points` points: means, lows and highs of neighbouring steps."""
    params = {"points": points, "split": split}
    return Call("GET", f"/v1/jobs/{job_id}/metrics/curve", Curve, params=params, repeatable=True)


def _data_report(job_id: str) -> Call[DataReport]:
    return Call("GET", f"/v1/jobs/{job_id}/data-report", DataReport, repeatable=True)


def _report(job_id: str) -> Call[bytes]:
    """What the job made, from what and how it went: an HTML page of one file."""
    return Call("GET", f"/v1/jobs/{job_id}/report", bytes, repeatable=True)


def _model_card(job_id: str) -> Call[bytes]:
    """Markdown in the form of Hugging Face, with the evaluations that there are by now."""
    return Call("GET", f"/v1/jobs/{job_id}/model-card", bytes, repeatable=True)


def _logs(job_id: str, *, attempt: int | None = None, tail: int = 500) -> Call[LogView]:
    """The last lines that an attempt's processes wrote; by default those of the newest one."""
    return Call("GET", f"/v1/jobs/{job_id}/logs", LogView, params=given(attempt=attempt, tail=tail), repeatable=True)


def _list_events(job_id: str, *, after: int = 0, limit: int = 100) -> Call[EventPage]:
    """Stored events, and `next_after` while there are more."""
    params = {"after": after, "limit": limit}
    return Call("GET", f"/v1/jobs/{job_id}/events", EventPage, params=params, repeatable=True)


def _list_metrics(job_id: str, *, after: int = 0, limit: int = 1000, split: Split | None = None) -> Call[MetricPage]:
    """Stored metrics, and `next_after` while there are more."""
    params = given(after=after, limit=limit, split=split)
    return Call("GET", f"/v1/jobs/{job_id}/metrics", MetricPage, params=params, repeatable=True)


def _events(job_id: str, *, after: int = 0, patience_s: float = 60) -> StreamCall[EventView | JobView]:
    """Follow a job to its end: every event after number `after`, and the job whenever it has changed. Goes on over
    breaks, losing and repeating no event.

    patience_s: how long the API may be away at a stretch before Unreachable is raised.
    """
    kinds: dict[str, type[EventView | JobView]] = {"event": EventView, "job": JobView}
    path = f"/v1/jobs/{job_id}/events"
    return StreamCall("GET", path, kinds, params={"after": after}, follows=True, patience_s=patience_s)


def _metrics(
    job_id: str, *, after: int = 0, split: Split | None = None, patience_s: float = 60
) -> StreamCall[MetricView]:
    """Follow a job's metrics to its end, like `events`. Of a step that was repeated the higher number counts."""
    params = given(after=after, split=split)
    path = f"/v1/jobs/{job_id}/metrics"
    return StreamCall("GET", path, {"metric": MetricView}, params=params, follows=True, patience_s=patience_s)


def _export_checkpoint(job_id: str, step: int) -> Call[ExportView]:
    """Make a model of the checkpoint, `job:ID@STEP`; asking again is harmless."""
    return Call("POST", f"/v1/jobs/{job_id}/checkpoints/{step}/export", ExportView, repeatable=True)


def _get_export(job_id: str, step: int) -> Call[ExportView]:
    return Call("GET", f"/v1/jobs/{job_id}/checkpoints/{step}/export", ExportView, repeatable=True)


def _delete_export(job_id: str, step: int) -> Call[ExportDeleted]:
    """Delete the model that was made of the checkpoint."""
    return Call("DELETE", f"/v1/jobs/{job_id}/checkpoints/{step}/export", ExportDeleted)


class Jobs(Resource[SenderT]):
    create = Operation(_create)
    dry_run = Operation(_dry_run)
    get = Operation(_get)
    list = Operation(_list)
    cancel = Operation(_cancel)
    pause = Operation(_pause)
    resume = Operation(_resume)
    retry = Operation(_retry)
    clone = Operation(_clone)
    delete = Operation(_delete)
    checkpoints = Operation(_checkpoints)
    export_checkpoint = Operation(_export_checkpoint)
    get_export = Operation(_get_export)
    delete_export = Operation(_delete_export)
    curve = Operation(_curve)
    data_report = Operation(_data_report)
    report = Operation(_report)
    model_card = Operation(_model_card)
    logs = Operation(_logs)
    list_events = Operation(_list_events)
    list_metrics = Operation(_list_metrics)
    events = Streaming(_events)
    metrics = Streaming(_metrics)
