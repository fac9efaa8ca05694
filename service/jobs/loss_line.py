"""The training loss of a job in a few points, kept beside its row: a list of jobs draws it without reading metrics."""

import math
from collections.abc import Sequence
from typing import Any

MAX_POINTS = 64

Line = dict[str, Any]  # {"stride": steps between two points, "points": [[step, loss], ...]}


def extended(line: Line | None, new: Sequence[tuple[int, float | None]]) -> Line | None:
    """`line` with (step, loss) pairs added. Steps that come again, after a resume, replace what was there.

    A line that has too many points loses every other one, and from then on takes half as many.
    """
    stride = line["stride"] if line is not None else 1
    points: list[list[float]] = list(line["points"]) if line is not None else []
    for step, loss in new:
        if loss is None or not math.isfinite(loss):
            continue
        while points and points[-1][0] >= step:
            points.pop()
        if points and step - points[-1][0] < stride:
            continue
        points.append([step, float(f"{loss:.5g}")])  # what a small curve can show of it
        if len(points) > MAX_POINTS:
            points, stride = points[::2], stride * 2
    return {"stride": stride, "points": points} if points else line
