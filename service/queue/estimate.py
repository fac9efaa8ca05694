"""How long a job will run: an interval from jobs like it that have succeeded, or from its own progress.

Likeness is told by work (`JobSize.work`: parameters x bytes x passes / workers). The `NEIGHBOURS` succeeded jobs that
are nearest by the ratio of work count, as long as that is at most `MAX_RATIO`; where a job's work is not known, those
on the same model. Each neighbour's run time t, at ratio r, says that this job takes between t and t * r: run time
grows with work, and no faster. The interval is the 10% quantile of the low ends to the 90% quantile of the high ends,
widened by 1 + 1/n for n neighbours: one neighbour alone says "half to double".

What this cannot know: a job that fails or is cancelled early, reference scores that are already stored, and machines
of another speed. `service.queue.score` measures how often the intervals hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.jobs.progress import Progress, eta_s
from service.spec import AlignmentJob, Stage

NEIGHBOURS = 20
MAX_RATIO = 4.0
_AFTER_TRAINING_S = 60.0  # held-out metrics, export and publishing, at most, where nothing better is known
_SINCE_TRAINING = (Stage.TRAIN, Stage.EVALUATE, Stage.PUBLISH)
_RATE_MAY_CHANGE = 1.25  # of a stage's rate so far


@dataclass(frozen=True)
class Interval:
    """Seconds."""

    low: float
    high: float

    def less(self, spent_s: float) -> "Interval | None":
        """What is left after `spent_s`; None if that should not have lasted so long: then nothing is known."""
        return Interval(max(0.0, self.low - spent_s), self.high - spent_s) if spent_s < self.high else None


@dataclass(frozen=True)
class Run:
    """A job that has succeeded. `seconds`: from its first word on the cluster to its end. `startup_s`: from its place
    there to that word."""

    model: str
    method: str
    work: float | None
    seconds: float
    startup_s: float


_STARTUP = Interval(1, 60)


def run_time(spec: AlignmentJob, work: float | None, history: Sequence[Run]) -> Interval | None:
    """Seconds from the job's first word to its end; None if no job like it has succeeded."""
    alike = [run for run in history if run.method == spec.training.method.type]
    spans = _by_work(work, alike) or [
        (run.seconds, run.seconds) for run in alike if run.model == spec.model.source and None in (run.work, work)
    ]
    return _interval(spans[:NEIGHBOURS])


def startup_time(history: Sequence[Run]) -> Interval:
    """Seconds from a job's place on the cluster to its first word; a guess as long as no job has succeeded."""
    return _interval([(run.startup_s, run.startup_s) for run in history[:NEIGHBOURS]]) or _STARTUP


def remaining(
    expected: Interval | None, stage: str | None, progress: Progress, started_at: datetime | None, now: datetime
) -> Interval | None:
    """Seconds from now to the end of a job that is on the cluster; None if nothing tells.

    Once it trains, its own rate is the better witness: up to `_RATE_MAY_CHANGE` faster or slower.
    """
    training = progress.get(Stage.TRAIN)
    if stage in _SINCE_TRAINING and training is not None and (left := eta_s(training)) is not None:
        left -= (now - datetime.fromisoformat(training["updated_at"])).total_seconds()
        left = max(0.0, left)
        return Interval(left / _RATE_MAY_CHANGE, left * _RATE_MAY_CHANGE + _AFTER_TRAINING_S)
    if expected is None:
        return None
    return expected if started_at is None else expected.less((now - started_at).total_seconds())


def _by_work(work: float | None, history: Sequence[Run]) -> list[tuple[float, float]]:
    if not work:
        return []
    ratios = [(work / run.work, run.seconds) for run in history if run.work]
    near = sorted((abs(math.log(ratio)), ratio, seconds) for ratio, seconds in ratios)
    return [
        (min(seconds, seconds * ratio), max(seconds, seconds * ratio))
        for distance, ratio, seconds in near
        if distance <= math.log(MAX_RATIO)
    ]


def _interval(spans: Sequence[tuple[float, float]]) -> Interval | None:
    if not spans:
        return None
    widened = 1 + 1 / len(spans)
    return Interval(
        _quantile([low for low, _ in spans], 0.1) / widened, _quantile([high for _, high in spans], 0.9) * widened
    )


def _quantile(values: Sequence[float], share: float) -> float:
    """Linear between the neighbours in rank."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
