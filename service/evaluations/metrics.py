"""Metrics that installed packages offer: entry points of the group `plumbline.metrics`.

A metric is a function of a prompt (a text, or a list of messages) and an answer (a text) that returns a finite number;
more is better or worse as its author says. It runs in the controller, in a thread: what an operator installs there is
trusted.
"""

import math
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from service.errors import InvalidRequest

GROUP = "plumbline.metrics"

Metric = Callable[[Any, str], float]


class MetricFailed(Exception):
    """The metric could not be loaded, or gave no number; the message says which."""


def names() -> list[str]:
    return sorted({point.name for point in entry_points(group=GROUP)})


def check(name: str, field: str) -> None:
    """Raises InvalidRequest if no installed package offers it."""
    if name not in names():
        there = ", ".join(names()) or "none"
        raise InvalidRequest(
            f"No installed package offers a metric '{name}' in the group {GROUP}; there are: {there}.", field=field
        )


def measure(name: str, prompt: Any, answer: str) -> float:
    """Raises MetricFailed for whatever the metric does wrong."""
    try:
        value = float(load(name)(prompt, answer))
    except MetricFailed:
        raise
    except Exception as error:  # somebody else's code: whatever it raises, loaded or called, is this score's failure
        raise MetricFailed(f"{type(error).__name__}: {error}"[:500]) from error
    if not math.isfinite(value):
        raise MetricFailed(f"the value is {value}")
    return value


@cache
def load(name: str) -> Metric:
    for point in entry_points(group=GROUP, name=name):
        metric: Metric = point.load()
        return metric
    raise MetricFailed("is not installed any more")
