"""Weights of a model that no worker holds whole: read from safetensors slice by slice, written tensor by tensor."""

import json
import shutil
from collections.abc import Callable, Iterator
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
    """The architecture at `path` with weights that nobody has written yet; `fill` reads them once they are sharded.

    They are real tensors, so that adapters can be put on them, in memory that the system gives only when it is touched.
    Raises AttemptError `sharding_unsupported` when the files do not hold every weight under its own name, as
    safetensors.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.tie_weights()
    stored = {name for file in path.glob("*.safetensors") for name in _names(file)}
    if missing := [name for name, _ in _untied(model) if name not in stored]:
        raise AttemptError(
            "sharding_unsupported",
            f"training.parallelism fsdp reads the weights of {path} in slices, but {len(missing)} of them, such as "
            f"{missing[0]}, have no tensor of that name in its safetensors files. Mixtures of experts are mostly "
            "stored in another form than they run in, old files under other names. Set training.parallelism: ddp.",
        )
    _replace(model, lambda parameter: torch.empty_like(parameter, device="cpu"))
    return model


def fill(model: PreTrainedModel, path: Path, device: torch.device, *, trained_too: bool) -> None:
    """Give each worker its slices, float32, read from the files of `path`. All workers call it.

    trained_too: False leaves weights alone that need a gradient, as those of an adapter that is gone on with. Weights
    of new adapters are always left alone.
    """

    def is_read(name: str, parameter: nn.Parameter) -> bool:
        return "lora_" not in name and (trained_too or not parameter.requires_grad)

    read = {parameter for name, parameter in model.named_parameters() if is_read(name, parameter)}

    def emptied(parameter: nn.Parameter) -> Tensor:
        assert isinstance(parameter, DTensor)
        local = torch.empty_like(parameter.to_local(), device=device) if parameter in read else parameter.to_local()
        return DTensor.from_local(
            local,
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )

    _replace(model, emptied)
    # twice: a module that is trained beside its frozen original has the same name in the files
    for trained in (False, True):
        wanted = {
            _file_name(name): parameter
            for name, parameter in model.named_parameters()
            if is_read(name, parameter) and parameter.requires_grad is trained
        }
        if wanted:
            load(wanted, storage_reader=HuggingFaceStorageReader(str(path)))
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    stored_too = {_file_name(name): tensor for name, tensor in model.state_dict().items() if name not in parameters}
    if stored_too:  # buffers
        load(stored_too, storage_reader=HuggingFaceStorageReader(str(path)))


def export_sharded(model: PreTrainedModel, source: Path, target: Path, dtype: torch.dtype, *, writes: bool) -> None:
    """Write the weights to `target` as safetensors files of at most 4 GiB, and the configuration of `source`.

    Each tensor is gathered, given to the one worker that `writes`, and let go. All workers call it.
    """
    names = list(_untied(model))
    sizes = [tensor.numel() * (dtype if tensor.is_floating_point() else tensor.dtype).itemsize for _, tensor in names]
    files = _files(sizes)
    weight_map: dict[str, str] = {}
    held: dict[str, Tensor] = {}
    for position, (name, parameter) in enumerate(names):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if not writes:
            continue
        held[name] = whole.detach().to("cpu", dtype if whole.is_floating_point() else whole.dtype, copy=True)
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


def _replace(model: nn.Module, make: Callable[[nn.Parameter], Tensor]) -> None:
    """Every parameter by what `make` gives for it; tied ones stay one."""
    new: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in new:
                new[parameter] = nn.Parameter(make(parameter), requires_grad=parameter.requires_grad)
            setattr(module, name, new[parameter])


def _file_name(name: str) -> str:
    """Of a weight inside what peft wraps around its module."""
    for infix in (".base_layer", ".original_module", ".modules_to_save.default"):
        name = name.replace(infix, "")
    return name


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
