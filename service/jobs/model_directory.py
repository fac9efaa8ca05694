"""Model directories that a client names by path: where they may lie, and what must be in them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.errors import InvalidRequest, ModelNotFound, ModelUnusable
from service.spec.model_config import why_not_trained
from service.spec.modules import DamagedWeights, check_adapter
from service.spec.training import Lora

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
WEIGHT_FILES = "*.safetensors"  # other formats are pickles, which run code when they are read


def find_model_directory(path: str, roots: Sequence[Path], field: str) -> Path:
    """The directory, with links and `..` resolved; ModelNotFound unless it then lies under one of `roots`.

    The answer is the same for what does not exist and for what lies elsewhere: clients do not get to look around.
    """
    try:
        directory = Path(path).resolve(strict=True)
    except (OSError, RuntimeError):  # not there, a name too long, a circle of links
        directory = None
    if (
        directory is None
        or not directory.is_dir()
        or not any(directory.is_relative_to(root.resolve()) for root in roots)
    ):
        raise ModelNotFound(
            f"There is no model directory {path} under {' or '.join(str(root) for root in roots)}. Put the model "
            "there, or name it as hf:owner/name or job:ID.",
            field=field,
        )
    return directory


def check_model_directory(directory: Path, field: str, *, needs_weights: bool) -> dict[str, Any]:
    """Its config.json. Raises ModelUnusable unless the directory has what transformers' `save_pretrained` writes."""
    if not directory.is_dir():
        raise ModelNotFound(f"The model directory {directory.name} is not in the storage any more.", field=field)
    config = _config(directory, field)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise ModelUnusable(
            f"The model has no tokenizer ({', '.join(TOKENIZER_FILES)}): save it beside the weights with the "
            "tokenizer's `save_pretrained`.",
            field=field,
        )
    if not needs_weights:
        return config
    if not any(directory.glob(WEIGHT_FILES)):
        raise ModelUnusable(
            f"The model has no weights in safetensors files ({WEIGHT_FILES}), and others are not read: save it with "
            '`save_pretrained`, or set weights to "random" to train from scratch.',
            field=field,
        )
    if reason := why_not_trained(config):
        raise ModelUnusable(f"The model cannot be trained. {reason}", field=field)
    return config


def check_adapted_modules(directory: Path, method: Lora) -> None:
    """Raises InvalidRequest for a module that the weights do not have, naming the nearest; ModelUnusable for damage."""
    try:
        found = check_adapter(directory, method)
    except DamagedWeights as error:
        raise ModelUnusable(f"The model's weights cannot be used: {error}. Copy them again.", field="model") from error
    if found:
        field = f"training.method.{found[0]}"
        raise InvalidRequest(f"{field}: {found[1]}. Give names of its modules, whole or their last parts.", field=field)


def _config(directory: Path, field: str) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise ModelUnusable("The model has no config.json: save it with transformers' `save_pretrained`.", field=field)
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ModelUnusable("The model's config.json is not a JSON object: save the model again.", field=field)
    return config
