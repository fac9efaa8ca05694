"""What a job asks of the cluster."""

from enum import StrEnum

from pydantic import Field

from service.spec.base import SpecModel


class PoolRequest(SpecModel):
    """Workers on one pool. Pools are Ray node labels (`pool: reference | policy | serving | control | shared`)."""

    workers: int = Field(1, ge=1, le=4096, description="Number of workers.", json_schema_extra={"unit": "workers"})
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        le=8,
        description="GPUs for each worker; by default 1 where the pool's nodes have GPUs or the service is set up for "
        "them, else 0.",
        json_schema_extra={"unit": "GPUs"},
    )
    cpus_per_worker: float = Field(
        1,
        ge=0,
        le=256,
        description="CPU slots for each worker; on a node without GPUs also its number of threads.",
        json_schema_extra={"unit": "CPUs"},
    )


class ReferencePlacement(StrEnum):
    """Where the reference pass runs."""

    AUTO = "auto"
    POOL = "pool"  # scorers on the reference pool, while training goes on
    POLICY = "policy"  # the training workers, on the policy's weights before its first step


class Resources(SpecModel):
    policy: PoolRequest = Field(default_factory=PoolRequest, description="Training workers.")
    reference: PoolRequest = Field(default_factory=PoolRequest, description="Scorers of the reference pass.")
    reference_placement: ReferencePlacement = Field(
        ReferencePlacement.AUTO,
        description="`pool`: scorers of their own, side by side with training. `policy`: the training workers score "
        "with the policy's own weights before its first step, as one GPU alone must. `auto`: `policy` for a model in "
        "slices (`parallelism: fsdp`), and for LoRA where the nodes have no GPU for a scorer beside those of training, "
        "or none carries a label of the reference pool, else `pool`; a pool that is scaled up needs `pool`.",
    )
    start_timeout_s: float = Field(
        1800,
        ge=1,
        le=86_400,
        description="How long an attempt waits for nodes of a pool before it fails, in seconds: enough for a machine "
        "that is only now started and has to fetch the image.",
        json_schema_extra={"unit": "s"},
    )
    max_failures: int = Field(
        3,
        ge=0,
        le=100,
        description="Lost training workers tolerated; each resumes from the last checkpoint.",
        json_schema_extra={"unit": "workers"},
    )
    max_gpu_hours: float | None = Field(
        None,
        gt=0,
        le=1e7,
        description="Budget: a job whose attempts have held its GPUs for so long saves a checkpoint and pauses until "
        "it is resumed with a higher one. A worker without `gpus_per_worker` counts as one GPU.",
        json_schema_extra={"unit": "GPU-hours"},
    )
