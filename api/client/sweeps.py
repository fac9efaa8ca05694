"""Sweeps."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from api.client.call import Call, Operation, Resource, SenderT, given
from api.client.jobs import Spec, body, once
from api.routes.sweeps import SweepPage, SweepView


def _create(
    base: Spec,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    changes: Sequence[Mapping[str, Any]] | None = None,
    name: str | None = None,
    idempotency_key: str | None = None,
) -> Call[SweepView]:
    """Queue a job for each combination of `grid` (values by path, as `losses.0.beta`) or for each of `changes` (JSON
    Merge Patches on `base`): all of them, or none if one is refused."""
    asked = {"base": body(base)} | given(grid=grid, changes=changes, name=name)
    return Call("POST", "/v1/sweeps", SweepView, json=asked, headers=once(idempotency_key), repeatable=True)


def _list(*, limit: int = 20, cursor: str | None = None) -> Call[SweepPage]:
    return Call("GET", "/v1/sweeps", SweepPage, params=given(limit=limit, cursor=cursor), repeatable=True)


def _get(sweep_id: str, *, metric: str | None = None, goal: Literal["min", "max"] | None = None) -> Call[SweepView]:
    """The jobs side by side; `best` goes by `metric`, such as `held_out.loss`."""
    return Call("GET", f"/v1/sweeps/{sweep_id}", SweepView, params=given(metric=metric, goal=goal), repeatable=True)


def _cancel(sweep_id: str) -> Call[SweepView]:
    """Ask every job that has not ended to stop."""
    return Call("POST", f"/v1/sweeps/{sweep_id}/cancel", SweepView, repeatable=True)


class Sweeps(Resource[SenderT]):
    create = Operation(_create)
    list = Operation(_list)
    get = Operation(_get)
    cancel = Operation(_cancel)
