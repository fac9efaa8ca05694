"""Several training workers on one model: whole copies whose gradients are summed (DDP), or shards of one (FSDP2)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from service.spec import Precision


@dataclass(frozen=True)
class Rank:
    """This worker's place among all training workers."""

    index: int = 0
    count: int = 1


class Whole(nn.Module):
    """A model as a module whose `forward` runs any computation on it: where DDP and FSDP2 put their hooks.

    Both act around `forward` of the outermost module, but body and head are run apart here. Tensors that need a
    gradient must be found in what the computation returns by torch's pytree: in tuples, lists or named tuples.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[..., Any], *args: Any) -> Any:
        return compute(*args)


def replicate(model: nn.Module) -> nn.Module:
    """Every worker holds the whole model; the last backward pass of a step sums the gradients over the workers."""
    whole = DistributedDataParallel(Whole(model), broadcast_buffers=False, gradient_as_bucket_view=True)
    whole.register_comm_hook(None, _sum)
    return whole


def shard(model: nn.Module, blocks: PreTrainedModel, precision: Precision, device: torch.device) -> nn.Module:
    """Every worker holds a slice of each weight, gathered for as long as its block computes; gradients are summed into
    slices after each backward pass (Zhao et al., arXiv 2304.11277; here torch's `fully_shard`).

    blocks: the transformers model inside `model`, which names the layers that are gathered one by one.
    In bf16 the blocks' matrices travel as bfloat16, as autocast would round them; norms, embeddings and head, and all
    sums, stay float32.
    """
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    names = set(blocks._no_split_modules or ())
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision is Precision.BF16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    whole = Whole(model)
    for module in [module for module in model.modules() if type(module).__name__ in names]:
        if norms := [one for one in module.modules() if _is_norm(one)]:
            fully_shard(norms, mesh=mesh)
        fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(whole, mesh=mesh)
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is already the mean over the whole step
            module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
    return whole


@contextmanager
def backward_pass(whole: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Around forward and backward of one micro-batch: replicas speak to each other in the last one of a step only.

    Shards do so in each, so that no worker ever holds the gradient of the whole model.
    """
    if isinstance(whole, DistributedDataParallel) and not is_last:
        with whole.no_sync():
            yield
    else:
        yield


def agreed(refusal: str | None) -> str | None:
    """Why not all workers can do what all must do alike, in the words of the first that cannot; None if each can.

    All training workers call it together, each with what it found itself; a process without others asks nobody.
    """
    if not distributed.is_initialized():
        return refusal
    found: list[str | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, refusal)
    if all(one == refusal for one in found):
        return refusal
    return next(f"worker {index}: {one}" for index, one in enumerate(found) if one is not None)


def let_go(whole: nn.Module) -> None:
    """Of what a forward pass without a backward pass left gathered: after it, parameters are slices again, and the next
    forward pass gathers them anew."""
    if isinstance(whole, FSDPModule):
        whole.reshard()


def abandon(whole: nn.Module) -> None:
    """A pass that failed halfway: parameters are slices again, and the next forward pass begins anew. Without it those
    that the pass had gathered would never get a gradient."""
    if isinstance(whole, FSDPModule):
        whole.reset_iter_state()


def _is_norm(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and all(parameter.ndim == 1 for parameter in own)


def _sum(_: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's own reduction is a mean."""
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed
