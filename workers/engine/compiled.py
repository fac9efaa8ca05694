"""Layers compiled by torch.compile: norms, gates, rotary embeddings and casts go through memory once, where each of
their operations would go through it by itself. The products stay as they are, and so does attention."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn.functional import rms_norm, silu
from transformers.modeling_layers import GradientCheckpointingLayer

from workers.engine import flex
from workers.errors import AttemptError

_GRAPHS = 64  # of one layer's code: with and without gradients, in each precision, for each kind of layer


def layers_of(model: nn.Module) -> list[nn.Module]:
    """What transformers repeats: attention, MLP and their norms."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def why_no_compiler(device: torch.device) -> str | None:
    """What keeps torch.compile from working here, tried forward and backward on a few numbers: None if nothing does."""
    values = torch.ones(3, 16, device=device, requires_grad=True)
    try:
        with torch.enable_grad():
            torch.autograd.grad(torch.compile(_norm_and_gate, dynamic=True)(values).sum(), values)
    except flex.FAILURES as error:
        return flex.in_words(error)
    return None


def compile_layers(model: nn.Module) -> None:
    """For any number of tokens: graphs are made when first asked for, and kept on the disk by torch."""
    for layer in layers_of(model):
        layer.forward = _compiled(layer.forward)


def as_they_were(model: nn.Module) -> None:
    """Undoes `compile_layers`."""
    for layer in layers_of(model):
        vars(layer).pop("forward", None)


@contextmanager
def typed_failures(*, compiled: bool = True) -> Iterator[None]:
    """Around forward and backward: a graph that a pass is the first to ask for is compiled there.

    compiled: whether the layers are; kernels of attention fail as torch says.
    """
    try:
        yield
    except TorchDynamoException as error:
        if not compiled:
            raise
        raise AttemptError(
            "compile_failed",
            "training.compile: torch.compile cannot take this model's layers. Leave it out. " + flex.in_words(error),
        ) from error


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Past the last of its graphs the forward runs as it was; torch warns of it."""
    compiler: Callable[..., Callable[..., Any]] = torch.compile  # its overloads do not name recompile_limit
    return compiler(forward, dynamic=True, recompile_limit=_GRAPHS)


def _norm_and_gate(values: torch.Tensor) -> torch.Tensor:
    return silu(rms_norm(values, values.shape[-1:])) * values
