"""A job's whole curve in few points, whatever its length.

The database joins the reports of many steps to one text, which takes it a fraction of the time that a row for each
takes; they are put into buckets here.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import from_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from service.jobs.log import Split


@dataclass(frozen=True)
class CurvePoint:
    """One bucket of neighbouring steps. A metric without a finite value in it is left out, and so is a bucket without
    any.

    mean, low, high: by metric, over the steps of the bucket; low and high keep the spikes that a mean hides.
    """

    first_step: int
    last_step: int
    num_steps: int
    mean: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]


async def curve(session: AsyncSession, job_id: str, split: Split, points: int) -> list[CurvePoint]:
    """At most `points` buckets of equal width in steps, in order; each step counts with its newest values.

    A job with no more steps than `points` gets each of them as it is.
    """
    joined = _JOINED.format(**_IN[session.get_bind().dialect.name])
    texts = (await session.execute(text(joined), {"job_id": job_id, "split": split})).all()
    return await asyncio.to_thread(_points, texts, points) if texts else []


def _points(texts: Sequence[Any], points: int) -> list[CurvePoint]:
    parts = [from_json(f"[[{one.steps}], [{one.numbers}], [{one.metrics}]]") for one in texts]
    steps_N, numbers_N = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    metrics = [values for part in parts for values in part[2]]
    order_N = np.lexsort((numbers_N, steps_N))
    newest_S = order_N[np.diff(steps_N[order_N], append=np.inf) > 0]  # the last report of each step
    steps_S = steps_N[newest_S]
    width = int(steps_S[-1] - steps_S[0]) + 1
    bucket_S = (steps_S - steps_S[0]) * min(points, width) // width
    found = {
        bucket: CurvePoint(int(steps_S[start]), int(steps_S[start + count - 1]), count, {}, {}, {})
        for bucket, start, count in zip(*(part.tolist() for part in _runs(bucket_S)), strict=True)
    }
    for name in sorted(set().union(*metrics)):
        values_S = np.array([values.get(name) for values in metrics], dtype=np.float64)[newest_S]
        is_told_S = np.isfinite(values_S)
        if not is_told_S.any():
            continue
        told_T = values_S[is_told_S]
        buckets_P, starts_P, counts_P = _runs(bucket_S[is_told_S])
        low_P, high_P = (extreme.reduceat(told_T, starts_P) for extreme in (np.minimum, np.maximum))
        mean_P = np.clip(_means(told_T, starts_P, counts_P), low_P, high_P)
        summed = (mean_P, low_P, high_P)
        for bucket, mean, low, high in zip(buckets_P.tolist(), *(part.tolist() for part in summed), strict=True):
            point = found[bucket]
            point.mean[name], point.low[name], point.high[name] = mean, low, high
    return [point for point in found.values() if point.mean]


def _means(values_T: np.ndarray, starts_P: np.ndarray, counts_P: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        mean_P: np.ndarray = np.add.reduceat(values_T, starts_P) / counts_P
    if not np.isfinite(mean_P).all():  # some sum is beyond what a float holds, and no mean is
        mean_P = np.add.reduceat(values_T / np.repeat(counts_P, counts_P), starts_P)
    return mean_P


def _runs(bucket_S: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The buckets that are there, where each begins and how many are in it."""
    return np.unique(bucket_S, return_index=True, return_counts=True)


# Of at most 1,000 steps each: a text of all could be larger than a database makes one.
_JOINED = """
SELECT {join}(CAST(step AS TEXT), ',') AS steps, {join}(CAST(number AS TEXT), ',') AS numbers,
    {join}(CAST("values" AS TEXT), ',') AS metrics
FROM metrics WHERE job_id = :job_id AND split = :split GROUP BY step / 1000
"""
_IN = {"sqlite": {"join": "group_concat"}, "postgresql": {"join": "string_agg"}}
