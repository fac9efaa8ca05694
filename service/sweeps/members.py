"""What a sweep asks for, and the jobs that it comes to. Pure functions."""

import hashlib
import itertools
import json
from typing import Annotated, Any

from pydantic import Field, JsonValue, model_validator

from service.errors import InvalidRequest
from service.jobs.clone import patched
from service.jobs.merge_patch import MAX_DEPTH, is_too_deep
from service.spec import AlignmentJob
from service.spec.base import SpecModel

MAX_MEMBERS = 64

Path = Annotated[str, Field(pattern=r"^[a-z_]+(\.([a-z_]+|[0-9]{1,2}))*$", max_length=200)]


class SweepRequest(SpecModel):
    """One of `grid` and `changes`."""

    name: str | None = Field(None, max_length=200, description="A name for people; need not be unique.")
    base: AlignmentJob = Field(description="What all the jobs have in common.")
    grid: dict[Path, Annotated[list[JsonValue], Field(min_length=1, max_length=MAX_MEMBERS)]] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="Values by the path of a field: a job for each combination, the last path varying fastest.",
        examples=[{"losses.0.beta": [0.1, 0.3], "training.learning_rate": [1e-6, 5e-6]}],
    )
    changes: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_MEMBERS)] | None = Field(
        None,
        description="A job for each: a JSON Merge Patch (RFC 7396) on `base`.",
        examples=[[{"losses": [{"type": "ipo"}]}, {"losses": [{"type": "sigmoid", "beta": 0.3}]}]],
    )

    @model_validator(mode="after")
    def _one_way(self) -> "SweepRequest":
        if (self.grid is None) == (self.changes is None):
            raise ValueError("give one of `grid` and `changes`")
        if is_too_deep(self.changes or self.grid):
            raise ValueError(f"`grid` and `changes` may not be nested deeper than {MAX_DEPTH} objects and lists")
        return self


def expand(request: SweepRequest) -> list[tuple[dict[str, Any], AlignmentJob]]:
    """What each job changes, as the request has it, and the job's specification.

    Raises InvalidRequest for more than `MAX_MEMBERS` jobs, for two that are the same, for a path that leads nowhere,
    and for a change that leaves no valid specification.
    """
    base = request.base.model_dump(mode="json")
    if request.changes is not None:
        members = [(changes, patched(base, changes)) for changes in request.changes]
    else:
        assert request.grid is not None
        members = [(values, _with_values(base, values)) for values in _combinations(request.grid)]
    first: dict[str, int] = {}
    for index, (_, spec) in enumerate(members):
        same = first.setdefault(spec.model_dump_json(), index)
        if same != index:
            raise InvalidRequest(f"Jobs {same} and {index} of the sweep are the same: leave one out.", field="changes")
    return members


def reference_group(sweep_id: str, spec: AlignmentJob) -> str | None:
    """Of jobs whose reference pass does the same work; None for a job without one."""
    if not spec.needs_reference_pass:
        return None
    work = {
        "model": spec.reference_model.model_dump(mode="json"),
        "policy": spec.model.model_dump(mode="json"),  # whose tokenizer it is
        "adapter": spec.continues_adapter,
        "data": spec.data.model_dump(mode="json"),
        "precision": spec.training.precision,
    }
    digest = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()
    return f"{sweep_id}:{digest[:20]}"


def _combinations(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    count = 1
    for values in grid.values():
        count *= len(values)
    if count > MAX_MEMBERS:
        raise InvalidRequest(f"The grid has {count} combinations; a sweep may have {MAX_MEMBERS} jobs.", field="grid")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _with_values(base: dict[str, Any], values: dict[str, Any]) -> AlignmentJob:
    body = json.loads(json.dumps(base))  # a copy that can be written to
    for path, value in values.items():
        *parents, last = path.split(".")
        at: Any = body
        for step in parents:
            at = _child(at, step, path)
        if isinstance(at, list):
            _child(at, last, path)
            at[int(last)] = value
        elif isinstance(at, dict):
            at[last] = value
        else:
            raise _nowhere(path)
    return patched(body, {})


def _child(at: Any, step: str, path: str) -> Any:
    if isinstance(at, dict) and step in at:
        return at[step]
    if isinstance(at, list) and step.isdecimal() and int(step) < len(at):
        return at[int(step)]
    raise _nowhere(path)


def _nowhere(path: str) -> InvalidRequest:
    return InvalidRequest(f"'{path}' is no field of `base` with its defaults.", field=f"grid.{path}")
