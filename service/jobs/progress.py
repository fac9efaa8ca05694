"""How far each stage of a job is, and when it will be through. Pure functions on the JSON that the job's row keeps."""

from datetime import datetime
from typing import Any

from service.spec import Stage
from service.spec.reports import ProgressReport

Progress = dict[str, Any]


def advance(progress: Progress, report: ProgressReport, now: datetime) -> Progress:
    """`progress` with the report's stage brought up to date.

    The rate that the ETA rests on begins anew when `done` goes back (a resumed stage repeats steps) and when `total`
    changes; where it begins is kept as `from_done` and `from_at`.
    """
    at = now.isoformat()
    entry = progress.get(report.stage)
    if entry is None:
        entry = {"started_at": at, "from_done": report.done, "from_at": at}
    elif report.done < entry["done"] or report.total != entry["total"]:
        entry = entry | {"from_done": report.done, "from_at": at}
    entry = entry | {"done": report.done, "total": report.total, "unit": report.unit, "updated_at": at}
    return progress | {str(report.stage): entry}


def eta_s(entry: dict[str, Any]) -> float | None:
    """Seconds from `updated_at` to the end of the stage at the rate so far; None while there is no rate."""
    if not entry["total"]:  # not known yet
        return None
    if entry["done"] >= entry["total"]:
        return 0.0
    elapsed_s = (datetime.fromisoformat(entry["updated_at"]) - datetime.fromisoformat(entry["from_at"])).total_seconds()
    advanced = entry["done"] - entry["from_done"]
    if advanced <= 0 or elapsed_s <= 0:
        return None
    return float((entry["total"] - entry["done"]) * elapsed_s / advanced)


def furthest(stage: str | None, reported: Stage) -> Stage:
    """Stages overlap; the one a job is in is the latest that any report has named."""
    order = list(Stage)
    return reported if stage is None or order.index(reported) >= order.index(Stage(stage)) else Stage(stage)
