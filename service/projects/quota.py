"""Quotas of a project: the limits, and what of them is left. Pure; `service.projects.usage` counts."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from service.errors import QuotaExceeded
from service.queue.capacity import Needs
from service.spec import AlignmentJob
from service.spec.resources import PoolRequest

_MAX = 2**53  # JSON's largest whole number that every client reads exactly


class Quota(BaseModel):
    """Limits of one project; null is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    max_live_jobs: int | None = Field(None, ge=0, le=_MAX, description="Jobs that have not ended, waiting ones too.")
    max_running_jobs: int | None = Field(
        None, ge=0, le=_MAX, description="Jobs on the cluster at one time; the others wait."
    )
    max_gpus: float | None = Field(
        None, ge=0, le=_MAX, description="GPUs that jobs and served models hold at one time; others wait."
    )
    max_gpu_hours_month: float | None = Field(
        None,
        ge=0,
        le=_MAX,
        description="GPU-hours of attempts in a calendar month (UTC). What runs goes on; nothing more starts.",
    )
    max_storage_bytes: int | None = Field(
        None, ge=0, le=_MAX, description="Bytes of uploaded files, of parts of pending uploads, and of models."
    )


class Usage(BaseModel):
    """What a project uses now."""

    model_config = ConfigDict(frozen=True)

    live_jobs: int = Field(description="Jobs that have not ended.")
    running_jobs: int = Field(description="Jobs on the cluster.")
    gpus: float = Field(description="GPUs that those jobs may hold, and those of served models.")
    gpu_hours_month: float = Field(description="GPU-hours of attempts in this calendar month (UTC).")
    storage_bytes: int = Field(description="Bytes of uploaded files, of parts of pending uploads, and of models.")


@dataclass(frozen=True)
class Shortage:
    """A limit that something does not fit under."""

    quota: str
    used: float
    asked: float
    limit: float

    @property
    def message(self) -> str:
        what = _UNITS[self.quota]
        return f"the project uses {self.used:g} of {self.limit:g} {what}, and this asks for {self.asked:g}"

    def error(self) -> QuotaExceeded:
        return QuotaExceeded(
            f"{self.quota}: {self.message}. End or delete something, or ask an operator for more.",
            quota=self.quota,
            used=self.used,
            asked=self.asked,
            limit=self.limit,
        )


_UNITS = {
    "max_live_jobs": "jobs that have not ended",
    "max_running_jobs": "running jobs",
    "max_gpus": "GPUs",
    "max_gpu_hours_month": "GPU-hours this month",
    "max_storage_bytes": "bytes",
}


def never_fits(quota: Quota, usage: Usage, gpus: float) -> Shortage | None:
    """Why a job that may hold `gpus` GPUs is not accepted; None if it is, although it may have to wait."""
    found = [
        _over("max_live_jobs", usage.live_jobs, 1, quota.max_live_jobs),
        _over("max_running_jobs", 0, 1, quota.max_running_jobs),
        _over("max_gpus", 0, gpus, quota.max_gpus),
        _spent("max_gpu_hours_month", usage.gpu_hours_month, quota.max_gpu_hours_month if gpus else None),
        _spent("max_storage_bytes", usage.storage_bytes, quota.max_storage_bytes),
    ]
    return next(filter(None, found), None)


def reason_to_wait(quota: Quota, usage: Usage, gpus: float) -> Shortage | None:
    """Why a queued job that may hold `gpus` GPUs does not start now; None if no quota keeps it."""
    found = [
        _over("max_running_jobs", usage.running_jobs, 1, quota.max_running_jobs),
        _over("max_gpus", usage.gpus, gpus, quota.max_gpus),
        _spent("max_gpu_hours_month", usage.gpu_hours_month, quota.max_gpu_hours_month if gpus else None),
    ]
    return next(filter(None, found), None)


def no_engine(quota: Quota, used: float, asked: float) -> Shortage | None:
    """Why engines of `asked` GPUs more are not started; None if they are. used: what jobs and engines hold now."""
    return _over("max_gpus", used, asked, quota.max_gpus)


def gpus_held(spec: AlignmentJob, *, unset: float) -> float:
    """GPUs that the job holds at most at one time: its training workers', and its scorers' if it may have any, which
    for LoRA depends on the cluster's nodes.

    unset: GPUs of a worker that does not say.
    """
    resources = spec.resources
    held = _gpus(resources.policy, unset)
    if Needs.of(spec).reference is not None:
        held += _gpus(resources.reference, unset)
    return held


def _gpus(pool: PoolRequest, unset: float) -> float:
    return pool.workers * (unset if pool.gpus_per_worker is None else pool.gpus_per_worker)


def _over(name: str, used: float, asked: float, limit: float | None) -> Shortage | None:
    return Shortage(name, used, asked, limit) if limit is not None and asked > 0 and used + asked > limit else None


def _spent(name: str, used: float, limit: float | None) -> Shortage | None:
    """Of what cannot be known beforehand: anything is too much once the limit is reached."""
    return Shortage(name, used, 0, limit) if limit is not None and used >= limit else None
