"""The GPU-hours of a job: what its budget is kept in.

They are counted as for quotas (`service.projects.usage`): from each attempt's lease to its end, times the GPUs that the
job may hold. So waiting for a node and preparing count too: it is what was kept from others.
"""

from datetime import datetime

from service.db.tables import Attempt, Job
from service.errors import InvalidRequest
from service.spec import AlignmentJob


def gpu_seconds(job: Job, attempt: Attempt, now: datetime) -> float:
    """What the attempt has held so far, or in all once it has ended."""
    held = ((attempt.finished_at or now) - attempt.created_at).total_seconds()
    return max(held, 0.0) * (job.gpus or 0.0)


def gpu_hours(job: Job, attempt: Attempt | None, now: datetime) -> float:
    """Of all attempts. attempt: the job's newest."""
    seconds = job.gpu_seconds
    if attempt is not None and not attempt.state.terminal:
        seconds += gpu_seconds(job, attempt, now)
    return seconds / 3600


def check_budget(spec: AlignmentJob, gpus: float) -> None:
    """gpus: that the job holds at most. Raises InvalidRequest for a budget that nothing would ever be counted on."""
    if spec.resources.max_gpu_hours is not None and not gpus:
        raise InvalidRequest(
            "The job's workers hold no GPUs, so it would never have held them for that long: leave max_gpu_hours out.",
            field="resources.max_gpu_hours",
        )
