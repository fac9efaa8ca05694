"""Whether the cluster could ever run a job: nodes with the labels it needs, room on the empty pools, memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import DoesNotFitMemory, PoolMissing, PoolTooSmall, ServiceError
from service.queue.capacity import Capacity, Needs, shortfall
from service.queue.memory import GIB, KNOWN_GIB, MemoryNeed, ModelShape, scoring_need, training_need
from service.settings import Settings
from service.spec import AlignmentJob, PoolRequest
from service.spec.pools import Pool

UNSEEN = "The cluster has not been seen lately, so this was not checked."


@dataclass(frozen=True)
class Finding:
    """`error`: what refuses the job, if anything does. Without one, `message` says what was found, or warns."""

    message: str
    error: ServiceError | None = None


def check_pools(spec: AlignmentJob, seen: Capacity | None, settings: Settings) -> Finding:
    """Labels that exist, and room on the empty cluster. With `settings.autoscaling` what is missing only warns.

    seen: the cluster's nodes; None if that is not known.
    """
    if seen is None:
        return Finding(UNSEEN)
    needs = Needs.of(spec)
    asked = needs.in_pools(seen)
    pools = [Pool.CONTROL, *asked, *([Pool.SERVING] if spec.serve else [])]
    error: ServiceError | None = None
    if missing := [pool for pool in pools if not seen.nodes_of(pool)]:
        error = PoolMissing(
            "; ".join(
                f"no node carries a label that admits {pool} work: {_labels(pool)}" for pool in missing
            ).capitalize()
            + ". Label one"
            + (", or set `serve: false`." if missing == [Pool.SERVING] else ", or ask who runs the cluster to."),
            pools=[pool.value for pool in missing],
        )
    elif wide := [pool for pool, request in asked.items() if not _one_worker_fits(pool, request, seen)]:
        pool = wide[0]
        most = max(node.gpus for node in seen.nodes_of(pool))
        error = PoolTooSmall(
            f"A worker of the {pool} pool asks for {asked[pool].gpus_per_worker or 0:g} GPUs and "
            f"{asked[pool].cpus_per_worker:g} CPU slots, and no node there has both: {most:g} GPUs at most. Ask for "
            "less.",
            field=f"resources.{pool}",
        )
    elif short := shortfall(needs.demand(seen), seen):
        pool, amount = next(iter(short.items()))
        need, there = needs.demand(seen).of(pool), seen.of_pool(pool)
        what = "GPUs" if amount.gpus else "CPU slots"
        error = PoolTooSmall(
            f"The job needs {need.gpus if amount.gpus else need.cpus:g} {what} on nodes labelled {_labels(pool)}, and "
            f"the cluster has {there.gpus if amount.gpus else there.cpus:g} in all. Ask for fewer workers.",
            field=f"resources.{pool}",
        )
    if error is not None:
        return (
            Finding(f"Nodes must be added first. {error.detail}")
            if settings.autoscaling
            else Finding(error.detail, error)
        )
    return Finding(f"The cluster has what the job needs on {', '.join(pools)}.")


def check_memory(
    spec: AlignmentJob,
    model: ModelShape | None,
    reference: ModelShape | None,
    seen: Capacity | None,
    settings: Settings,
) -> Finding:
    """Whether policy and scorers fit the pools' GPUs, by the formula of `service.queue.memory`.

    Refuses only what cannot fit; the activations' estimate warns. Pools on CPUs are not checked: nodes share memory.
    """
    if seen is None:
        return Finding(UNSEEN)
    told = []
    for pool, request in Needs.of(spec).in_pools(seen).items():
        shape = model if pool is Pool.POLICY or spec.reference is None else reference
        memory = _gpu_memory(pool, request, seen, KNOWN_GIB | settings.gpu_memory_gib)
        if shape is None or memory is None:
            told.append(
                f"{pool}: not known before the attempt" if shape is None else f"{pool}: no GPUs of known memory"
            )
            continue
        need = training_need(spec, shape) if pool is Pool.POLICY else scoring_need(spec, shape)
        if need.states > memory:
            return _too_large(spec, pool, need, memory)
        told.append(
            f"{pool}: about {need.total / GIB:.0f} of {memory / GIB:.0f} GiB"
            + (", which may not be enough: lower `training.micro_batch_tokens` or set `gradient_checkpointing`"
               if need.total > memory else "")
        )  # fmt: skip
    return Finding("Of one GPU, " + "; ".join(told) + ".")


def _too_large(spec: AlignmentJob, pool: Pool, need: MemoryNeed, memory: float) -> Finding:
    way_out = "use `parallelism: fsdp` with more workers, or `method: {type: lora}`"
    if pool is Pool.REFERENCE:
        way_out = "use `resources.reference_placement: policy`, or a smaller reference"
    error = DoesNotFitMemory(
        f"Weights and optimizer state of the model need {need.states / GIB:.1f} GiB on each GPU of the {pool} pool, "
        f"and the largest there gives {memory / GIB:g} GiB: {way_out}.",
        field="model" if pool is Pool.POLICY or spec.reference is None else "reference",
        needed_gib=round(need.states / GIB, 2),
        gpu_gib=round(memory / GIB, 2),
    )
    return Finding(error.detail, error)


def _gpu_memory(pool: Pool, request: PoolRequest, seen: Capacity, known: Mapping[str, float]) -> float | None:
    """Bytes that the largest GPU of the pool gives one worker; None where workers use none, or one of unknown type."""
    nodes = [node for node in seen.nodes_of(pool) if node.gpus]
    if not nodes or request.gpus_per_worker == 0:
        return None
    sizes = [known.get(node.accelerator or "") for node in nodes]
    if None in sizes:
        return None
    share = request.gpus_per_worker or 1.0
    # A worker computes on one GPU, however many it asks for.
    return max(size for size in sizes if size is not None) * GIB * min(1.0, share)


def _one_worker_fits(pool: Pool, request: PoolRequest, seen: Capacity) -> bool:
    return any(
        (request.gpus_per_worker or 0) <= node.gpus and request.cpus_per_worker <= node.cpus
        for node in seen.nodes_of(pool)
    )


def _labels(pool: Pool) -> str:
    return " or ".join(f"pool={label}" for label in sorted(pool.labels))
