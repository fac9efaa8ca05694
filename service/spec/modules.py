"""The modules of a model, as the headers of its safetensors files name them; and names that are none of them."""

import difflib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from service.spec.training import Lora

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


class DamagedWeights(ValueError):
    """A safetensors file whose header cannot be read, or which ends before its last tensor."""


def tensor_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the directory's safetensors files, of which only the headers are read.

    Empty for a model in another format. Raises DamagedWeights.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(directory.glob("*.safetensors")):
        shapes.update(_header(path))
    return shapes


def check_adapter(directory: Path, method: Lora) -> tuple[str, str] | None:
    """Which option of the method names a module that the model in `directory` lacks, and a sentence about it.

    None if there is none, or if the weights are not safetensors: their names cannot be read here. A matrix tells a
    module that can be adapted; but not one that is embeddings and head at once. Raises DamagedWeights.
    """
    shapes = tensor_shapes(directory)
    if not shapes:
        return None
    config = json.loads((directory / "config.json").read_bytes())
    matrices = {name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2}
    modules = modules_of(shapes)
    targets = [] if method.target_modules == "all-linear" else method.target_modules
    if config.get("tie_word_embeddings") is not False and not _has("lm_head", modules):
        modules.add("lm_head")  # a tied head is no tensor of its own
        if tied := [name for name in targets if name == "lm_head" or _has(name, _embeddings(shapes, config))]:
            return "target_modules", (
                f"{', '.join(tied)} is the input embeddings and the head in one, into which an adapter cannot be "
                "merged: train it whole, in modules_to_save"
            )
    for option, wanted, known in (
        ("target_modules", targets, matrices),
        ("modules_to_save", method.modules_to_save, modules),
    ):
        if problem := unknown_modules(wanted, known):
            return option, problem
    return None


def modules_of(tensors: Iterable[str]) -> set[str]:
    """Paths of all modules that hold one of these tensors, at any depth."""
    found: set[str] = set()
    for name in tensors:
        parts = name.split(".")[:-1]
        found.update(".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return found


def unknown_modules(wanted: Iterable[str], modules: Collection[str]) -> str | None:
    """A sentence about the names that are no module's path or the end of one, with the nearest; None if all are."""
    parts = {path.rpartition(".")[2] for path in modules}
    told = []
    for name in wanted:
        if _has(name, modules):
            continue
        near = difflib.get_close_matches(name, sorted(p for p in parts if not p.isdigit()), n=3, cutoff=0.5)
        told.append(f"no '{name}'" + (f" (near: {', '.join(near)})" if near else ""))
    return f"the model has {'; '.join(told)}" if told else None


def _has(name: str, modules: Collection[str]) -> bool:
    return name in modules or any(path.endswith(f".{name}") for path in modules)


def _embeddings(shapes: Mapping[str, tuple[int, ...]], config: dict[str, Any]) -> set[str]:
    """Modules whose matrix has a row for every token."""
    text = config.get("text_config")
    size = (text if isinstance(text, dict) else config).get("vocab_size")
    return {name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2 and shape[0] == size}


def _header(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= _MAX_HEADER_BYTES:
            raise DamagedWeights(f"{path.name} is no safetensors file")
        try:
            header = json.loads(file.read(size))
            tensors = [(str(name), one) for name, one in header.items() if name != "__metadata__"]
            end = max((one["data_offsets"][1] for _, one in tensors), default=0)
            shapes = [(name, tuple(map(int, one["shape"]))) for name, one in tensors]
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError) as error:
            raise DamagedWeights(f"the header of {path.name} is damaged") from error
    if not math.isfinite(end) or path.stat().st_size < 8 + size + end:
        raise DamagedWeights(f"{path.name} is cut off")
    yield from shapes
