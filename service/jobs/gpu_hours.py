"""The GPU-hours that jobs hold: what their budgets and accounts are kept in.

An attempt holds the GPUs of its training workers from its driver's first word to its end, and those of its scorers
until the reference pass has let go of them. So preparing and waiting for a node count too: what counts is what nobody
else could use. Without `gpus_per_worker` a worker counts as one GPU; on a pool of CPUs it does as well, unless the job
says 0.
"""

from datetime import datetime

from pydantic import ValidationError

from service.db.tables import Attempt, Job
from service.spec import AlignmentJob
from service.spec.resources import ReferencePlacement
from service.spec.training import Parallelism


def gpu_seconds(spec: AlignmentJob, attempt: Attempt, now: datetime) -> float:
    """What the attempt has held so far, or in all once it has ended."""
    if attempt.started_at is None:
        return 0.0
    end = attempt.finished_at or now
    held = (end - attempt.started_at).total_seconds()
    scoring = (min(attempt.scored_at or end, end) - attempt.started_at).total_seconds()
    return max(held, 0.0) * spec.resources.policy.gpus + max(scoring, 0.0) * _scorers_gpus(spec)


def gpu_hours(job: Job, attempt: Attempt | None, now: datetime) -> float:
    """Of all attempts. attempt: the job's newest."""
    seconds = job.gpu_seconds
    if attempt is not None and not attempt.state.terminal:
        try:
            seconds += gpu_seconds(AlignmentJob.model_validate(job.spec), attempt, now)
        except ValidationError:  # of another version: what it holds cannot be told
            return seconds / 3600
    return seconds / 3600


def _scorers_gpus(spec: AlignmentJob) -> float:
    """Whether `auto` comes to scorers of their own is seen on the cluster alone: LoRA's count until it has scored."""
    placement, resources = spec.resources.reference_placement, spec.resources
    in_slices = spec.training.parallelism is Parallelism.FSDP and resources.policy.workers > 1
    by_policy = placement is ReferencePlacement.POLICY or (
        placement is ReferencePlacement.AUTO and in_slices and spec.reference is None
    )
    return resources.reference.gpus if spec.needs_reference_pass and not by_policy else 0.0
