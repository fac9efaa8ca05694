"""Whether a model fits the GPUs it is to be trained on, estimated from its files before anything is started.

Of one training worker, in bytes, for N parameters of which A are adapters, W workers that share slices (1 with DDP):

    states, full          16 N / W       float32 weights, gradients and Adam's two moments (plus 4 N / W for a
                                         reference that follows the policy)
    states, LoRA          2 N / W + 16 A frozen weights as they are stored: 2 bytes at least
    activations           T x L x (16 h + 6 i), or T x L x 4 h plus one layer with gradient checkpointing
    head                  3 x 4 x C x V  a chunk of logits, its exponentials, its gradient

T is `micro_batch_tokens`; L, h, i and V are the layers, widths and vocabulary of config.json; C = 1024 is the head's
chunk. A scorer holds 2 N at least, 4 N in float32, and one layer's activations.

States follow from the design and are exact to a few per cent, so a model whose states alone are over the memory is
refused. Activations depend on the architecture and its kernels: within a factor of two, so they only warn. Allocator
overhead and NCCL's buffers are in `_OVERHEAD`. Compare Korthikanti et al., arXiv 2205.05198, for the activations.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.spec import AlignmentJob, Lora
from service.spec.modules import DamagedWeights, tensor_shapes
from service.spec.training import Parallelism

GIB = 2**30
_OVERHEAD = 1.5 * GIB  # CUDA's context, kernels, the allocator's slack
_HEAD_CHUNK = 1024

# GiB of the largest build of each type, by Ray's name: what does not fit that fits none.
KNOWN_GIB = {
    "T4": 16.0,
    "V100": 32.0,
    "A10G": 24.0,
    "L4": 24.0,
    "L40S": 48.0,
    "A100": 80.0,
    "A100-40G": 40.0,
    "A100-80G": 80.0,
    "H20": 141.0,
    "H100": 96.0,
    "H200": 141.0,
    "B200": 192.0,
    "B300": 288.0,
}


@dataclass(frozen=True)
class ModelShape:
    """parameters: of all weights. The others are 0 where config.json does not say."""

    parameters: int
    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    vocabulary: int = 0


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on one GPU. Only `states` is certain."""

    states: float
    activations: float

    @property
    def total(self) -> float:
        return self.states + self.activations + _OVERHEAD


def model_shape(directory: Path, config: dict[str, Any]) -> ModelShape | None:
    """Of the model in `directory`: counted in the headers of its safetensors files, else worked out of its
    configuration; None if neither tells."""
    text = config.get("text_config")
    numbers = text if isinstance(text, dict) else config
    layers, hidden = _number(numbers, "num_hidden_layers"), _number(numbers, "hidden_size")
    intermediate, vocabulary = _number(numbers, "intermediate_size"), _number(numbers, "vocab_size")
    try:
        parameters = sum(math.prod(shape) for shape in tensor_shapes(directory).values())
    except (DamagedWeights, OSError):  # what is wrong with them is another check's to say
        parameters = 0
    if not parameters and layers and hidden:
        heads = _number(numbers, "num_attention_heads") or 1
        size = _number(numbers, "head_dim") or hidden // heads
        keys = _number(numbers, "num_key_value_heads") or heads
        attention = 2 * hidden * size * (heads + keys)
        embeddings = vocabulary * hidden * (1 if numbers.get("tie_word_embeddings", True) else 2)
        parameters = embeddings + layers * (attention + 3 * hidden * (intermediate or 4 * hidden))
    return ModelShape(parameters, layers, hidden, intermediate, vocabulary) if parameters else None


def training_need(spec: AlignmentJob, model: ModelShape) -> MemoryNeed:
    """Of one training worker on a GPU."""
    training = spec.training
    slices = spec.resources.policy.workers if training.parallelism is Parallelism.FSDP else 1
    if isinstance(training.method, Lora):
        # two matrices beside each linear layer: four of attention, three of the MLP
        adapters = training.method.rank * model.layers * (8 * model.hidden + 3 * (model.hidden + model.intermediate))
        states = 2 * model.parameters / slices + 16 * adapters
    else:
        states = (20 if training.reference_sync else 16) * model.parameters / slices
    return MemoryNeed(states, _activations(spec, model, keeps_all=not training.gradient_checkpointing))


def scoring_need(spec: AlignmentJob, model: ModelShape) -> MemoryNeed:
    """Of one scorer on a GPU. Its weights are at least 2 bytes each."""
    one_layer = ModelShape(model.parameters, min(1, model.layers), model.hidden, model.intermediate, model.vocabulary)
    return MemoryNeed(2.0 * model.parameters, _activations(spec, one_layer, keeps_all=True))


def _activations(spec: AlignmentJob, model: ModelShape, *, keeps_all: bool) -> float:
    tokens = spec.training.micro_batch_tokens
    layer = 16 * model.hidden + 6 * model.intermediate
    kept = model.layers * layer if keeps_all else model.layers * 4 * model.hidden + layer
    return tokens * kept + 3.0 * 4 * min(_HEAD_CHUNK, tokens) * model.vocabulary


def _number(config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9 else 0
