"""A job's whole curve in few points, whatever its length: the database adds up buckets of steps."""

import json
from dataclasses import dataclass
from typing import Any

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
    dialect = session.get_bind().dialect.name
    asked = {"job_id": job_id, "split": split, "points": points}
    found: list[CurvePoint] = []
    for row in await session.execute(text(_CURVE.format(**_IN[dialect])), asked):
        values: dict[str, Any] = json.loads(row.metrics) if isinstance(row.metrics, str) else row.metrics
        mean, low, high = ({name: one[place] for name, one in values.items()} for place in range(3))
        found.append(CurvePoint(row.first_step, row.last_step, row.num_steps, mean, low, high))
    return found


# Twice grouped: by bucket and metric, then by bucket, so that 500 rows come back and not 500 for each metric.
_CURVE = """
WITH ends AS (
    SELECT min(step) AS first, max(step) AS last FROM metrics WHERE job_id = :job_id AND split = :split
), buckets AS (
    SELECT
        (CAST(m.step - ends.first AS BIGINT) * {least}(CAST(:points AS BIGINT), ends.last - ends.first + 1))
            / (ends.last - ends.first + 1) AS bucket,
        m.step AS step, m.number AS number, m."values" AS metrics
    FROM metrics AS m CROSS JOIN ends
    WHERE m.job_id = :job_id AND m.split = :split AND NOT EXISTS (
        SELECT 1 FROM metrics AS later
        WHERE later.job_id = m.job_id AND later.split = m.split AND later.step = m.step AND later.number > m.number
    )
), widths AS (
    SELECT bucket, min(step) AS first_step, max(step) AS last_step, count(*) AS num_steps FROM buckets GROUP BY bucket
), summed AS (
    SELECT buckets.bucket AS bucket, one.key AS name, avg({value}) AS mean, min({value}) AS low, max({value}) AS high
    FROM buckets CROSS JOIN {each} AS one
    WHERE one.value IS NOT NULL
    GROUP BY buckets.bucket, one.key
)
SELECT widths.first_step, widths.last_step, widths.num_steps, {object} AS metrics
FROM widths JOIN summed ON summed.bucket = widths.bucket
GROUP BY widths.bucket, widths.first_step, widths.last_step, widths.num_steps
ORDER BY widths.bucket
"""
_IN = {
    "sqlite": {
        "least": "min",
        "each": "json_each(buckets.metrics)",
        "value": "one.value",
        "object": "json_group_object(name, json_array(mean, low, high))",
    },
    "postgresql": {
        "least": "least",
        "each": "json_each_text(buckets.metrics)",
        "value": "CAST(one.value AS DOUBLE PRECISION)",
        "object": "json_object_agg(name, json_build_array(mean, low, high))",
    },
}
