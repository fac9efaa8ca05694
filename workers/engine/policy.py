"""The policy and a reference that follows it, loaded the way the job's workers hold them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from service.spec import AlignmentJob, Precision
from service.spec.training import Parallelism
from workers.engine.adapters import adapt
from workers.engine.live_reference import LiveReference
from workers.engine.models import CausalLM, load_model, round_frozen, split, stored_dtype, with_compiled_layers
from workers.engine.parallel import Rank, Whole, replicate, shard
from workers.engine.sharded_weights import fill, without_weights
from workers.sources import Weights


@dataclass(frozen=True)
class Policy:
    """`model` is what is trained, with its adapters; `lm` runs it, whichever way its weights are spread."""

    model: nn.Module
    lm: CausalLM


def load_policy(job: AlignmentJob, start: Weights, rank: Rank, device: torch.device) -> Policy:
    """The policy before its first step. Raises AttemptError as `load_model`, `adapt`, `without_weights` and
    `with_compiled_layers` do."""
    training = job.training
    precision = training.precision
    seed = training.seed if job.model.weights == "random" else None
    if rank.count == 1 or training.parallelism is Parallelism.DDP:
        base = load_model(start.model, random_seed=seed).to(device)
        model = adapt(base, training.method, training.seed, start.adapter)
        lm = split(base, replicate(model) if rank.count > 1 else Whole(model), precision)
        if precision is Precision.BF16 and stored_dtype(start.model) is torch.bfloat16:
            round_frozen(base)  # loses nothing: so they were stored
    elif seed is not None:  # the same weights come of a seed only if they are drawn for a whole model
        base = load_model(start.model, random_seed=seed)
        model = adapt(base, training.method, training.seed, start.adapter)
        lm = split(base, shard(model, base, precision, device), precision)
    else:
        base = without_weights(start.model)
        model = adapt(base, training.method, training.seed, start.adapter)
        whole = shard(model, base, precision, device)
        fill(base, start.model, device, trained_too=start.adapter is None)
        lm = split(base, whole, precision)
    return Policy(model, with_compiled_layers(lm, precision, trains=True) if training.compile else lm)


def load_live_reference(job: AlignmentJob, path: Path, rank: Rank, device: torch.device) -> LiveReference | None:
    """The model at `path`, if the job lets its reference follow the policy."""
    training = job.training
    if training.reference_sync is None:
        return None
    whole: nn.Module | None = None
    if rank.count == 1 or training.parallelism is Parallelism.DDP:
        model = load_model(path).to(device)
    else:
        model = without_weights(path)
        whole = shard(model, model, training.precision, device)
        fill(model, path, device, trained_too=True)
    lm = split(model, whole, training.precision)
    lm = with_compiled_layers(lm, training.precision) if training.compile else lm
    return LiveReference(lm, training.reference_sync)
