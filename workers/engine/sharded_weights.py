"""Weights of a model that no worker holds whole: read from safetensors slice by slice, written tensor by tensor."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from workers.errors import AttemptError

_FILE_BYTES = 4 * 2**30


def without_weights(path: Path) -> PreTrainedModel:
    """The architecture at `path` with weights on the meta device; `fill` gives them once they are sharded.

    Raises AttemptError `sharding_unsupported` when the files do not hold every weight under its own name, as
    safetensors.
    """
    config = AutoConfig.from_pretrained(path)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.tie_weights()
    stored = {name for file in path.glob("*.safetensors") for name in _names(file)}
    if missing := [name for name, _ in model.named_parameters() if name not in stored]:
        raise AttemptError(
            "sharding_unsupported",
            f"training.parallelism fsdp reads the weights of {path} in slices, but its safetensors files lack "
            f"{missing[0]} and {len(missing) - 1} more: they have other names there, or another format. Load the model "
            "with transformers and save it again, or set training.parallelism: ddp.",
        )
    return model


def fill(model: PreTrainedModel, path: Path, device: torch.device) -> None:
    """Give each worker its slices, float32, read from the files of `path`. All workers call it."""
    new: dict[nn.Parameter, nn.Parameter] = {}  # tied ones stay one
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in new:
                local = torch.empty_like(parameter.to_local(), device=device)
                new[parameter] = nn.Parameter(_like(parameter, local))
            setattr(module, name, new[parameter])
    load(dict(model.named_parameters()), storage_reader=HuggingFaceStorageReader(str(path)))


def export_sharded(model: PreTrainedModel, source: Path, target: Path, dtype: torch.dtype, *, writes: bool) -> None:
    """Write the weights to `target` as safetensors files of at most 4 GiB, and the configuration of `source`.

    Each tensor is gathered, given to the one worker that `writes`, and let go. All workers call it.
    """
    names = list(_untied(model))
    sizes = [parameter.numel() * dtype.itemsize for _, parameter in names]
    files = _files(sizes)
    weight_map: dict[str, str] = {}
    held: dict[str, Tensor] = {}
    for position, (name, parameter) in enumerate(names):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if not writes:
            continue
        held[name] = whole.detach().to("cpu", dtype, copy=True)
        if position + 1 == len(names) or files[position + 1] != files[position]:
            file = f"model-{files[position] + 1:05}-of-{files[-1] + 1:05}.safetensors"
            save_file(held, target / file, {"format": "pt"})
            weight_map |= dict.fromkeys(held, file)
            held = {}
    if writes:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
        shutil.copyfile(source / "config.json", target / "config.json")


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


def _like(sharded: Tensor, local: Tensor) -> DTensor:
    assert isinstance(sharded, DTensor)
    return DTensor.from_local(
        local, sharded.device_mesh, sharded.placements, run_check=False, shape=sharded.shape, stride=sharded.stride()
    )


def _untied(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Weights and persistent buffers, each once."""
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _files(sizes: list[int]) -> list[int]:
    """The number of the file that each tensor goes to, in order."""
    numbers, number, used = [], 0, 0
    for size in sizes:
        if used and used + size > _FILE_BYTES:
            number, used = number + 1, 0
        used += size
        numbers.append(number)
    return numbers
